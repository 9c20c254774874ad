"""Result lines with what a trained generator could know of their cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eval.bench.cases import Case
from eval.bench.mini_files import load_mini
from eval.files import read_picture
from eval.results.reading import checked
from freectl.errors import InputError

GROUPS = {
    "trained": "as trained",
    "unseen": "unseen object",
    "style": "other style word",
    "background": "new background",
    "object": "new object word",
}
"""Kinds of wish, by what a generator knows of them: the columns of generality."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A result line with its case, its folder and the run's seed."""

    line: Line
    case: Case
    folder: Path
    seed: int

    @property
    def picture(self) -> Image.Image:
        """The result."""
        return read_picture(self.folder / self.line["picture"])


def read(folders: Sequence[Path]) -> list[Found]:
    """All lines with their cases.

    Raises:
        InputError: a folder without results, or of a benchmark without exact answers.
    """
    found = []
    for folder in folders:
        about, lines = checked(folder)
        if about["layout"] != "mini":
            raise InputError("DIR", f"'{folder}' without results of a mini benchmark", "folders that eval.run wrote")
        bench = load_mini(about["bench"])
        found += [Found(line, bench[line["case"]], folder, about["seed"]) for line in lines]
    return found


def group_of(styles: tuple[str, str], unseen: Sequence[str]) -> Callable[[Case], str | None]:
    """What a case is for a generator trained from one style to another without the `unseen` objects."""

    def group(case: Case) -> str | None:
        if case.scenes is None:
            return None
        source, target = case.scenes
        changed = [w for w in ("object", "style", "background") if getattr(source, w) != getattr(target, w)]
        if changed != ["style"]:
            return changed[0] if len(changed) == 1 else None
        if (source.style, target.style) != styles:
            return "style"
        return "unseen" if source.object in unseen else "trained"

    return group
