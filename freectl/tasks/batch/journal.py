"""What a batch has done: DIR/results.jsonl, one line a result; what its pictures themselves tell after a kill."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.files import journal
from freectl.files.atomic import sweep
from freectl.files.paths import is_file, is_folder
from freectl.files.record import check_output, read_mark, read_record
from freectl.tasks.batch.rows import Wanted

NAME = "results.jsonl"
Line = dict[str, Any]


class Journal:
    """The folder of a batch.

    Args:
        folder: made when it is opened.
        option: what messages call it.
    """

    def __init__(self, folder: Path, option: str = "--out") -> None:
        self.folder, self.option = folder, option
        self.path = folder / NAME

    @contextmanager
    def opened(self, resume: bool) -> Iterator["Journal"]:
        """Keep other batches out of the folder while this one runs.

        Raises:
            InputError: the folder cannot be made; or it holds a batch, which is not to be resumed.
            FreectlError: another batch is running there.
        """
        self.check(resume)
        with journal.locked(self.folder, self.option):
            yield self

    def check(self, resume: bool) -> None:
        """Refuse, before anything is read, a folder that a batch cannot be written to.

        Raises:
            InputError: a file; or it holds a batch, which is not to be resumed.
        """
        if is_file(self.folder):
            raise InputError(self.option, f"'{self.folder}', a file", "a folder")
        if is_file(self.path) and not resume:
            found = f"'{self.folder}', which holds the results of a batch"
            raise InputError(self.option, found, "--resume to go on with it, or another folder")

    def recover(self, wanted: Sequence[Wanted]) -> set[str]:
        """The identities of the results that are there, after repairing what a kill has left.

        Torn and failed lines go, and lines whose picture is gone; a picture whose line was not written gets it.
        """
        for folder in {(self.folder / one.name).parent for one in wanted}:
            sweep(folder, older=-math.inf)
        found, damaged = journal.lines(self.path, _whole)
        lines = {line["id"]: line for line in found if line["output"] and is_file(self.folder / line["output"])}
        known = len(lines)
        for one in wanted:
            if one.identity not in lines and (line := self.written(one)) is not None:
                lines[one.identity] = line
        if damaged or len(lines) != len(found) or len(lines) != known:
            journal.rewrite(self.path, list(lines.values()), self.option)
        return set(lines)

    def written(self, one: Wanted) -> Line | None:
        """The line of a result whose picture is there, whole and of these settings; else None."""
        target = self.folder / one.name
        if not is_file(target) or read_mark(target) != one.identity:
            return None
        try:
            return line_of(one, read_record(target), one.name)
        except InputError:  # the record beside a JPEG was not written any more
            return None

    def append(self, line: Line) -> None:
        """Add a line, on disk when this returns.

        Raises:
            FreectlError: the disk is full or the folder not writable.
        """
        journal.append(self.path, line, self.option)

    def place(self, one: Wanted) -> Path:
        """Where a result goes; its folder is made.

        Raises:
            InputError: a link leads outside the folder of the batch, or nothing can be written there.
            FreectlError: its folder cannot be made.
        """
        target = self.folder / one.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            inside = target.parent.resolve().is_relative_to(self.folder.resolve())
        except OSError as error:
            raise FreectlError(f"{self.option}: could not make '{target.parent}': {error.strerror or error}") from error
        if not inside:
            raise InputError(self.option, f"'{target}', where a link leads outside", "a folder without such links")
        return check_output(target, self.option)

    def leave(self, wanted: Iterable[Wanted]) -> None:
        """Remove what processes that were stopped had begun to write."""
        for folder in {(self.folder / one.name).parent for one in wanted}:
            if is_folder(folder):
                sweep(folder, older=-math.inf)


def line_of(one: Wanted, record: Line, output: str) -> Line:
    """A result's line."""
    return {**record, "row": one.row, "id": one.identity, "output": output}


def failure(row: int, identity: str, error: str, **about: Any) -> Line:
    """The line of a row or result that failed."""
    return {"row": row, "id": identity, "output": None, "error": error, **about}


def _whole(line: Line) -> bool:
    return isinstance(line["id"], str) and isinstance(line["row"], int) and isinstance(line["output"], str | None)
