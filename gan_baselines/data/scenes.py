"""Scenes with known words and masks into the folders that models train on."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_baselines.config import Layout
from gan_baselines.data.marks import METADATA
from gan_baselines.data.pictures import picture_size, read_picture, save_image
from gan_baselines.errors import InputError
from gan_baselines.files import check_new

MIDDLE = 127
WORDS = {"labelled": ("mask", "object", "background"), "captioned": ("caption",), "classed": ("object",)}


@dataclass(frozen=True)
class Placement:
    """A scene's picture, relative to the source folder, where it goes, and the scene."""

    picture: str
    target: str
    scene: dict[str, Any]


def from_scenes(
    source: Path, out: Path, layout: Layout, *, test_objects: list[str] | None = None, share: float = 0.2, seed: int = 0
) -> dict[str, Any]:
    """Copy scenes into splits; return the test's objects and the counts.

    `source` holds scenes.jsonl with "picture" (a path; of two sides where it ends in A/name or B/name, or trainA/name)
    and "object". Paired and unpaired: objects of the test never occur in training; `layout="unpaired"` gives each
    training scene to one side only; test scenes keep both sides, as hidden truth. Labelled, captioned and classed take
    side B (or the only one), with maps of background and object numbers, captions, or a folder for each object; they
    hold out a share of the scenes, or `test_objects`.

    Raises:
        InputError: no scenes.jsonl, an unknown object, a missing picture or word, or `out` not empty; nothing is
            written.
    """
    scenes = _read_scenes(source, layout)
    objects = sorted({scene["object"] for scene in scenes})
    chosen = test_objects or (_draw(objects, share, seed) if layout in ("paired", "unpaired") else [])
    for name in chosen:
        if name not in objects:
            raise InputError("--test-objects", f"'{name}'", ", ".join(objects))
    if len(chosen) == len(objects):
        raise InputError("--test-objects", f"all {len(objects)} objects", "at least one object left for training")
    check_new(out)
    if layout in WORDS:
        held = _draw(range(len(scenes)), share, seed) if not chosen else []
        tests = [scene["object"] in chosen or index in held for index, scene in enumerate(scenes)]
        placements = list(_marked_placements(scenes, tests, layout))
    else:
        placements = list(_placements(scenes, set(chosen), layout))
    for placement in placements:
        picture_size(source / placement.picture, "--scenes")
    counts: dict[str, int] = {}
    for placement in placements:
        target = out / placement.target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / placement.picture, target)
        folder = Path(placement.target).parent.as_posix()
        counts[folder] = counts.get(folder, 0) + 1
    _write_marks(source, out, layout, placements, scenes)
    return {"test_objects": sorted(chosen), "pictures": counts}


def _write_marks(
    source: Path, out: Path, layout: Layout, placements: list[Placement], scenes: list[dict[str, Any]]
) -> None:
    if layout == "labelled":
        backgrounds = sorted({f"background {scene['background']}" for scene in scenes})
        names = [*backgrounds, *sorted({scene["object"] for scene in scenes})]
        for placement in placements:
            _write_labels(source, out, placement, names)
        (out / "labels.json").write_text(json.dumps(names), encoding="utf-8")
    if layout == "captioned":
        for split in {Path(placement.target).parts[0] for placement in placements}:
            lines = [json.dumps({"file_name": Path(p.target).name, "text": p.scene["caption"]})
                     for p in placements if Path(p.target).parts[0] == split]  # fmt: skip
            (out / split / METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_labels(source: Path, out: Path, placement: Placement, names: list[str]) -> None:
    scene, target = placement.scene, Path(placement.target)
    inside = np.asarray(read_picture(source / scene["mask"], "--scenes"))[..., 0] > MIDDLE
    labels = np.where(inside, names.index(scene["object"]), names.index(f"background {scene['background']}"))
    for kind, values in (("labels", labels), ("instances", inside)):
        folder = out / target.parts[0] / kind
        folder.mkdir(parents=True, exist_ok=True)
        save_image(Image.fromarray(values.astype(np.uint8)), folder / f"{target.stem}.png")


def _read_scenes(source: Path, layout: Layout) -> list[dict[str, Any]]:
    path = source / "scenes.jsonl"
    wanted = ("picture", "object", *WORDS.get(layout, ()))
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{name: line[name] for name in wanted} for line in lines]
    except OSError as error:
        raise InputError("--scenes", f"no readable '{path}'", "a folder written with its scenes.jsonl") from error
    except (ValueError, KeyError, TypeError) as error:
        allowed = "lines with " + ", ".join(f'"{name}"' for name in wanted)
        raise InputError("--scenes", f"'{path}', not scenes ({error})", allowed) from error


def _draw(things: Any, share: float, seed: int) -> list[Any]:
    count = max(1, round(share * len(things)))
    return random.Random(f"test objects/{seed}").sample(list(things), count)


def _placements(scenes: list[dict[str, Any]], held: set[str], layout: Layout) -> Iterator[Placement]:
    for scene in scenes:
        path = Path(scene["picture"])
        side, test = path.parent.name[-1:], scene["object"] in held
        if side not in ("A", "B"):
            raise InputError("--scenes", f"picture '{path.as_posix()}'", "pictures of two sides, in folders A and B")
        split = "test" if test else "train"
        if layout == "unpaired":
            # one side only in training, so that no training picture has its counterpart in the other collection
            counterpart = path.parent.name == side and not test
            if not counterpart or (sum(path.stem.encode()) % 2 == 0) == (side == "A"):
                yield Placement(scene["picture"], f"{split}{side}/{path.name}", scene)
        else:
            yield Placement(scene["picture"], f"{split}/{side}/{path.name}", scene)


def _marked_placements(scenes: list[dict[str, Any]], tests: list[bool], layout: Layout) -> Iterator[Placement]:
    for scene, test in zip(scenes, tests, strict=True):
        path, split = Path(scene["picture"]), "test" if test else "train"
        if path.parent.name in ("A", "trainA", "testA"):
            continue
        # scenes of several splits may have equal names
        name = f"{path.parent.parent.name}{path.name}" if path.parent.name == "B" else path.name
        folder = {"labelled": f"{split}/pictures", "captioned": split}.get(layout, f"{split}/{scene['object']}")
        yield Placement(scene["picture"], f"{folder}/{name}", scene)
