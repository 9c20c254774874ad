"""Making and checking data folders: sheets into pairs, scenes into splits by object, a look at every file."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_baselines.config import Layout
from gan_baselines.data.folders import Split, find_sources, has_split, same_names
from gan_baselines.data.pictures import by_stem, picture_files, picture_size, read_picture, save_image
from gan_baselines.data.sets import PictureSet
from gan_baselines.errors import InputError
from gan_baselines.files import check_new


def split_sheets(source: Path, out: Path, *, swap: bool = False) -> dict[str, int]:
    """Cut side-by-side sheets of `source` (and of its train/ and test/) into out/{train,test}/{A,B}; return counts.

    Sheets directly in `source` become training pictures. `swap` takes B from the left half.

    Raises:
        InputError: no sheets, an odd width, a damaged file, two of one name, or `out` not empty; nothing is written.
    """
    check_new(out)
    folders = {split: source / split for split in ("train", "test") if (source / split).is_dir()} or {"train": source}
    sheets = {split: by_stem(picture_files(folder, "--input"), "--input") for split, folder in folders.items()}
    for path in (path for files in sheets.values() for path in files.values()):  # all before the first is written
        width = read_picture(path, "--input").width
        if width % 2:
            raise InputError("--input", f"'{path}' of odd width {width} px", "two halves of equal width")
    for split, files in sheets.items():
        for name, path in files.items():
            image = read_picture(path, "--input")
            middle = image.width // 2
            halves = [image.crop((0, 0, middle, image.height)), image.crop((middle, 0, image.width, image.height))]
            for side, half in zip("BA" if swap else "AB", halves, strict=True):
                (out / split / side).mkdir(parents=True, exist_ok=True)
                save_image(half, out / split / side / f"{name}.png")
    return {split: len(files) for split, files in sheets.items()}


def from_scenes(
    source: Path, out: Path, layout: Layout, *, test_objects: list[str] | None = None, share: float = 0.2, seed: int = 0
) -> dict[str, Any]:
    """Copy scenes into splits whose test objects never occur in training; return the objects and counts.

    `source` holds scenes.jsonl with "picture" (a path ending in A/name or B/name, or trainA/name) and "object".
    `layout="unpaired"` gives each training scene to one side only; test scenes keep both sides, as hidden truth.

    Raises:
        InputError: no scenes.jsonl, an unknown object, a missing picture, or `out` not empty; nothing is written.
    """
    scenes = _read_scenes(source)
    objects = sorted({scene["object"] for scene in scenes})
    chosen = test_objects or _draw(objects, share, seed)
    for name in chosen:
        if name not in objects:
            raise InputError("--test-objects", f"'{name}'", ", ".join(objects))
    if len(chosen) == len(objects):
        raise InputError("--test-objects", f"all {len(objects)} objects", "at least one object left for training")
    check_new(out)
    placements = list(_placements(scenes, set(chosen), layout))
    for picture, _ in placements:
        picture_size(source / picture, "--scenes")
    counts: dict[str, int] = {}
    for picture, target in placements:
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / picture, out / target)
        folder = str(Path(target).parent.as_posix())
        counts[folder] = counts.get(folder, 0) + 1
    return {"test_objects": sorted(chosen), "pictures": counts}


def check_folder(root: Path, layout: Layout) -> dict[str, Any]:
    """Decode every picture of a data folder; return counts and sizes for each split that exists.

    Raises:
        InputError: the first fault found.
    """
    report: dict[str, Any] = {"layout": layout}
    splits: tuple[Split, ...] = ("train", "test") if has_split(root, layout, "test") else ("train",)
    for split in splits:
        sources = find_sources(root, layout, split)
        sets = {side: PictureSet(found) for side, found in sources.items()}
        for part in sets.values():
            part.verify()
        report[split] = {side: {"pictures": len(s), "size": [s.width, s.height]} for side, s in sets.items()}
        if layout == "unpaired":
            report[split]["same_names"] = same_names(sources)
    return report


def _read_scenes(source: Path) -> list[dict[str, Any]]:
    path = source / "scenes.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{"picture": line["picture"], "object": line["object"]} for line in lines]
    except OSError as error:
        raise InputError("--scenes", f"no readable '{path}'", "a folder written with its scenes.jsonl") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("--scenes", f"'{path}', not scenes ({error})", 'lines with "picture" and "object"') from error


def _draw(objects: list[str], share: float, seed: int) -> list[str]:
    count = max(1, round(share * len(objects)))
    return random.Random(f"test objects/{seed}").sample(objects, count)


def _placements(scenes: list[dict[str, Any]], held: set[str], layout: Layout) -> Iterator[tuple[str, str]]:
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
                yield scene["picture"], f"{split}{side}/{path.name}"
        else:
            yield scene["picture"], f"{split}/{side}/{path.name}"
