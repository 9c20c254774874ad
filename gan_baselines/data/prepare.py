"""Making and checking data folders: sheets into pairs, a look at every file."""

from pathlib import Path
from typing import Any

from gan_baselines.config import Layout
from gan_baselines.data.folders import Split, find_sources, has_split, same_names
from gan_baselines.data.pictures import by_stem, picture_files, read_picture, save_image
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
