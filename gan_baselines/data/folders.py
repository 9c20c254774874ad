"""Where the pictures of a data folder lie: unpaired, paired, side-by-side sheets, or one collection."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gan_baselines.config import Layout
from gan_baselines.data.marks import read_captions
from gan_baselines.data.pictures import by_stem, has_pictures, picture_files
from gan_baselines.errors import InputError

Split = Literal["train", "test"]
LAYOUTS = {
    "unpaired": "trainA/ and trainB/ (or train/A/ and train/B/)",
    "paired": "train/A/ and train/B/ with equal file names, or train/ with side-by-side sheets (A left, B right)",
    "single": "pictures in train/, in pictures/ or in the folder itself",
    "labelled": "train/labels/ (PNG, a class index a pixel) and train/pictures/ with equal file names, and "
    "train/instances/ (PNG, a number an object) where there are instances",
    "captioned": 'pictures in train/ and train/metadata.jsonl with lines of "file_name" and "text"',
    "classed": "a folder of pictures for each class in train/",
}


@dataclass(frozen=True)
class Source:
    """Pictures of one side.

    Attributes:
        half: 0 or 1 takes the left or right half of each file; None the whole.
        labels: the files hold class indices or instance numbers, not colours.
        marks: the class or the caption of each file, where the layout has them.
    """

    files: tuple[Path, ...]
    half: int | None = None
    labels: bool = False
    marks: tuple[str, ...] = ()


def find_sources(root: Path, layout: Layout, split: Split = "train", option: str = "--data") -> dict[str, Source]:
    """Return the sources by side: "A" and "B" (and "I" for instances), or "picture".

    Raises:
        InputError: the folder is missing, empty, or laid out otherwise.
    """
    if not root.is_dir():
        raise InputError(option, f"no folder '{root}'", "an existing folder")
    if layout == "single":
        return {"picture": _single(root, split, option)}
    if layout in _MARKED and (root / split).is_dir():
        return _MARKED[layout](root / split, option)
    beside, below = (root / f"{split}A", root / f"{split}B"), (root / split / "A", root / split / "B")
    if layout == "unpaired":
        for pair in (beside, below):
            if all(folder.is_dir() for folder in pair):
                return {side: Source(tuple(picture_files(f, option))) for side, f in zip("AB", pair, strict=True)}
    elif all(folder.is_dir() for folder in below):
        return _pairs(*below, option)
    elif (root / split).is_dir():
        sheets = tuple(picture_files(root / split, option))
        return {"A": Source(sheets, 0), "B": Source(sheets, 1)}
    expected = LAYOUTS[layout].replace("train", split)
    raise InputError(option, f"'{root}' with {_contents(root)}", f"a folder with {expected}")


def styled_sources(root: Path, style: Path, option: str = "--data", style_option: str = "--style") -> dict[str, Source]:
    """One collection of contents, "A", and a style picture or a folder of them, "B".

    Raises:
        InputError: no picture in either.
    """
    files = picture_files(style, style_option) if style.is_dir() else [style]
    return {"A": find_sources(root, "single", option=option)["picture"], "B": Source(tuple(files))}


def has_split(root: Path, layout: Layout, split: Split) -> bool:
    """Whether `root` has a folder for `split` in this layout."""
    if layout == "unpaired":
        return (root / f"{split}A").is_dir() or (root / split / "A").is_dir()
    if layout in _MARKED:
        return (root / split).is_dir()
    return (root / split).is_dir() and (layout == "paired" or has_pictures(root / split))


def same_names(sources: dict[str, Source]) -> bool:
    """Whether sides A and B hold files of equal names: the hidden truth of an unpaired test set."""
    return [f.stem for f in sources["A"].files] == [f.stem for f in sources["B"].files]


def _pairs(a: Path, b: Path, option: str) -> dict[str, Source]:
    files = {side: by_stem(picture_files(folder, option), option) for side, folder in (("A", a), ("B", b))}
    lonely = sorted(files["A"].keys() ^ files["B"].keys())
    if lonely:
        raise InputError(option, f"'{lonely[0]}' on one side only of '{a.parent}'", "equal file names in A/ and B/")
    return {side: Source(tuple(found[name] for name in sorted(found))) for side, found in files.items()}


def _labelled(folder: Path, option: str) -> dict[str, Source]:
    sides = {"A": "labels", "B": "pictures", "I": "instances"}
    there = {side: folder / name for side, name in sides.items() if side != "I" or (folder / name).is_dir()}
    files = {side: by_stem(picture_files(found, option), option) for side, found in there.items()}
    for side, found in files.items():
        if lonely := sorted(found.keys() ^ files["B"].keys()):
            allowed = "equal file names in all of them"
            raise InputError(option, f"'{lonely[0]}' in only one of '{there[side]}' and '{there['B']}'", allowed)
    return {side: Source(tuple(found[n] for n in sorted(found)), labels=side != "B") for side, found in files.items()}


def _captioned(folder: Path, option: str) -> dict[str, Source]:
    files = tuple(picture_files(folder, option))
    return {"picture": Source(files, marks=tuple(read_captions(folder, [path.name for path in files], option)))}


def _classed(folder: Path, option: str) -> dict[str, Source]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise InputError(option, f"'{folder}' with {_contents(folder)}", "a folder of pictures for each class")
    files = [path for found in classes for path in picture_files(found, option)]
    return {"picture": Source(tuple(files), marks=tuple(path.parent.name for path in files))}


_MARKED = {"labelled": _labelled, "captioned": _captioned, "classed": _classed}


def _single(root: Path, split: Split, option: str) -> Source:
    folders = [root / split, root / "pictures", root]
    for folder in folders:
        if folder.is_dir() and has_pictures(folder):
            return Source(tuple(picture_files(folder, option)))
    raise InputError(option, f"'{root}' with {_contents(root)}", LAYOUTS["single"].replace("train", split))


def _contents(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing in it"
