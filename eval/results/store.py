"""A results folder: one JSON line a case and variant, pictures, and what the run was; safe against being killed.

`run.json` says what is compared; `results.jsonl` grows by whole lines; `pictures/VARIANT/CASE.png` is written before
its line. A line torn by a kill is cut off and its case is done again.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from eval.files import parsed, write_picture, write_text
from freectl.errors import FreectlError, InputError
from freectl.files import journal

FORMAT = "freectl-eval/1"
SAME = ("format", "bench", "digest", "model", "weights", "seed", "steps", "dtype")
"""Entries of run.json in which runs of one folder agree."""
SETS = "sets.json"
"""Scores of whole sets of pictures, by variant."""
Done = tuple[str, str]


class Store:
    """A results folder.

    Args:
        folder: created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines_path, self.about_path = folder / "results.jsonl", folder / "run.json"

    @contextmanager
    def locked(self) -> Iterator["Store"]:
        """Keep other runs out of the folder.

        Raises:
            InputError: the folder cannot be made.
            FreectlError: another run is writing to it.
        """
        with journal.locked(self.folder):
            yield self

    def about(self, option: str = "--out") -> dict[str, Any]:
        """run.json, or {} where there is none.

        Args:
            option: that errors name.

        Raises:
            InputError: damaged, or of another format.
        """
        if not self.about_path.exists():
            return {}
        about = parsed(self.about_path, json.loads, "a folder that eval.run wrote", option)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            found = about.get("format") if isinstance(about, dict) else type(about).__name__
            raise InputError(option, f"'{self.about_path}' of format {found!r}", FORMAT)
        return about

    def begin(self, about: dict[str, Any], command: str) -> dict[str, Any]:
        """Write run.json, or add this command to the one that is there; returns it.

        Raises:
            InputError: the folder holds results of another benchmark, model, seed or step count.
        """
        about = {"format": FORMAT, **about}
        before = self.about()
        for key in SAME:
            if before and before.get(key) != about.get(key):
                found = f"'{self.folder}' with results of {key} {before.get(key)!r}"
                raise InputError("--out", found, f"an empty folder, or results of {key} {about.get(key)!r}")
        commands = [*before.get("commands", []), command]
        merged = {**before, **about, "commands": list(dict.fromkeys(commands))}
        self.write_about(merged)
        return merged

    def write_about(self, about: dict[str, Any]) -> None:
        """Replace run.json."""
        self.write_text(self.about_path.name, json.dumps(about, indent=1, sort_keys=True) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a file of the folder.

        Raises:
            FreectlError: the disk is full or the folder not writable.
        """
        write_text(self.folder / name, text)

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines, in order; the last of several with the same case and variant."""
        found: dict[Done, dict[str, Any]] = {}
        for line in self._whole_lines()[0]:
            found[line["case"], line["variant"]] = line
        return list(found.values())

    def _whole_lines(self) -> tuple[list[dict[str, Any]], bool]:
        def whole(line: dict[str, Any]) -> bool:
            return all(isinstance(line[key], str) for key in ("case", "variant", "picture")) and "scores" in line

        return journal.lines(self.lines_path, whole)

    def recover(self) -> set[Done]:
        """(case, variant) pairs that are done; damaged lines, and those whose picture is gone, are dropped."""
        lines, damaged = self._whole_lines()
        kept = [line for line in lines if (self.folder / line["picture"]).is_file()]
        if damaged or len(kept) < len(lines):
            self.rewrite(kept)
        return {(line["case"], line["variant"]) for line in kept}

    def rewrite(self, lines: list[dict[str, Any]]) -> None:
        """Replace all lines."""
        journal.rewrite(self.lines_path, lines)

    def append(self, line: dict[str, Any]) -> None:
        """Add one line, on disk when this returns.

        Raises:
            FreectlError: the disk is full or the file not writable.
            ValueError: a number in it is NaN or infinite.
        """
        journal.append(self.lines_path, line)

    def save_picture(self, relative: str, picture: Image.Image) -> str:
        """Write a picture whole or not at all; returns `relative`.

        Raises:
            FreectlError: the disk is full or the folder not writable.
        """
        path = self.folder / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FreectlError(f"--out: could not make '{path.parent}': {error.strerror or error}") from error
        write_picture(path, picture)
        return relative
