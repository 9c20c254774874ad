"""Where the pictures of a data folder lie: unpaired, paired, side-by-side sheets, or one collection."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gan_baselines.config import Layout
from gan_baselines.data.pictures import by_stem, has_pictures, picture_files
from gan_baselines.errors import InputError

Split = Literal["train", "test"]
LAYOUTS = {
    "unpaired": "trainA/ and trainB/ (or train/A/ and train/B/)",
    "paired": "train/A/ and train/B/ with equal file names, or train/ with side-by-side sheets (A left, B right)",
    "single": "pictures in train/, in pictures/ or in the folder itself",
}


@dataclass(frozen=True)
class Source:
    """Pictures of one side. `half` 0 or 1 takes the left or right half of each file; None the whole."""

    files: tuple[Path, ...]
    half: int | None = None


def find_sources(root: Path, layout: Layout, split: Split = "train", option: str = "--data") -> dict[str, Source]:
    """Return the sources by side: "A" and "B", or "picture".

    Raises:
        InputError: the folder is missing, empty, or laid out otherwise.
    """
    if not root.is_dir():
        raise InputError(option, f"no folder '{root}'", "an existing folder")
    if layout == "single":
        return {"picture": _single(root, split, option)}
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


def has_split(root: Path, layout: Layout, split: Split) -> bool:
    """Whether `root` has a folder for `split` in this layout."""
    if layout == "unpaired":
        return (root / f"{split}A").is_dir() or (root / split / "A").is_dir()
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


def _single(root: Path, split: Split, option: str) -> Source:
    folders = [root / split, root / "pictures", root]
    for folder in folders:
        if folder.is_dir() and has_pictures(folder):
            return Source(tuple(picture_files(folder, option)))
    raise InputError(option, f"'{root}' with {_contents(root)}", LAYOUTS["single"].replace("train", split))


def _contents(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing in it"
