"""Writing scenes to folders: single pictures, exact pairs of two styles, or two unpaired collections."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from freectl.files.paths import is_file, is_folder, there
from freectl.mini.domain import ARTWORK, PICTURE_SIZE
from freectl.mini.scene import Scene, random_scene, render, render_mask

Layout = Literal["single", "paired", "unpaired"]
TEST_SHARE = 0.1
UNFINISHED = "unfinished.json"
"""Beside scenes of which not all are written yet: what was asked for."""


def scenes(count: int, seed: int, styles: tuple[str, ...]) -> Iterator[Scene]:
    """`count` scenes; the first n of two calls with equal seed and styles are equal."""
    rng = random.Random(f"scenes/{seed}")
    for _ in range(count):
        yield random_scene(rng, styles=styles)


def split_of(index: int) -> str:
    """Every tenth scene is a test scene, starting with the tenth."""
    return "test" if index % round(1 / TEST_SHARE) == round(1 / TEST_SHARE) - 1 else "train"


def may_write(out: Path, **asked: Any) -> bool:
    """Whether a folder is new, empty, or what a `write_scenes` of the same arguments has left unfinished.

    Raises:
        OSError: it cannot be looked into.
    """
    if not there(out):
        return True
    if not is_folder(out):
        return False
    marker = out / UNFINISHED
    return not any(out.iterdir()) or (is_file(marker) and marker.read_text() == _asked(asked))


def _asked(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True)


def write_scenes(
    out: Path, count: int, seed: int, *, styles: tuple[str, ...], layout: Layout = "single", size: int = PICTURE_SIZE
) -> int:
    """Write pictures, masks and `scenes.jsonl`; returns the number of pictures.

    Until all is written the folder holds the file `UNFINISHED`.

    single: `pictures/`, `masks/`. paired: `train/A`, `train/B`, `test/A`, `test/B` with the same scene in styles[0]
    and styles[1] under the same name. unpaired: `trainA`, `trainB`, `testA`, `testB` of different scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    marker = out / UNFINISHED
    marker.write_text(_asked({"count": count, "seed": seed, "styles": styles, "layout": layout, "size": size}))
    lines = []
    for folder, name, scene in _placements(count, seed, styles, layout):
        picture = Path(folder) / f"{name}.png"
        mask = Path("masks") / folder / f"{name}.png" if layout != "single" else Path("masks") / f"{name}.png"
        for path, image in ((picture, render(scene, size)), (mask, render_mask(scene, size))):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            image.save(out / path)
        lines.append(json.dumps({"picture": picture.as_posix(), "mask": mask.as_posix(), **scene.to_dict()}))
    (out / "scenes.jsonl").write_text("\n".join(lines) + "\n")
    marker.unlink()
    return len(lines)


def _placements(count: int, seed: int, styles: tuple[str, ...], layout: Layout) -> Iterator[tuple[str, str, Scene]]:
    if layout == "single":
        for index, scene in enumerate(scenes(count, seed, styles)):
            yield "pictures", f"{index:05d}", scene
    elif layout == "paired":
        drawn = next((style for style in styles if style in ARTWORK), None)
        for index, scene in enumerate(scenes(count, seed, styles[:1])):
            # a sketch or silhouette must derive from the drawing that it is paired with
            same = scene.with_words(style=drawn) if drawn else scene
            for side, style in zip("AB", styles, strict=True):
                yield f"{split_of(index)}/{side}", f"{index:05d}", same.with_words(style=style)
    else:
        for offset, (side, style) in enumerate(zip("AB", styles, strict=True)):
            for index, scene in enumerate(scenes(count, 2 * seed + offset, (style,))):
                yield f"{split_of(index)}{side}", f"{index:05d}", scene
