"""Where the files of one command go: never over one of its inputs, never silently over a result of other settings."""

import filecmp
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files import record as records
from freectl.files.atomic import FINISHED, alone_in
from freectl.files.paths import is_folder, same, there

OUTCOME = ("output", "cost", "warnings")
"""Keys of a record that tell how a run went, not what was asked for."""
Inputs = Iterable[tuple[str, str | os.PathLike[str]]]


def digest(*parts: Any) -> str:
    """16 hex digits of a result's settings: of records, their outcome left out, of pictures and of texts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(_bytes(part))
    return found.hexdigest()[:16]


def _bytes(part: Any) -> bytes:
    if isinstance(part, Image.Image):
        return repr((part.mode, part.size)).encode() + part.tobytes()
    if isinstance(part, dict):
        part = records.dumps({key: value for key, value in part.items() if key not in OUTCOME})
    return str(part).encode("utf-8", "surrogateescape")


class Outputs:
    """The files that one command writes.

    Args:
        inputs: (option, path) of every file that the run reads; texts that name no file are passed over.
        overwrite: whether an earlier result of other settings is replaced; else the new one is numbered, NAME_2.png.

    Attributes:
        notes: what a user should know of where files went.
    """

    def __init__(self, inputs: Inputs = (), *, overwrite: bool = False) -> None:
        self.inputs = [(option, path) for option, path in inputs if path and there(path)]
        self.overwrite = overwrite
        self.notes: list[str] = []

    def check(self, path: str | os.PathLike[str], option: str = "--output") -> Path:
        """Return a picture's path after checking, before anything runs, that it may be written there.

        Raises:
            InputError: as `record.check_output`; or an input of the run.
        """
        target = records.check_output(path, option)
        self._check_not_input(target, option)
        return target

    def take_notes(self) -> list[str]:
        """The notes since the last call."""
        taken, self.notes = self.notes, []
        return taken

    def check_file(self, path: Path, suffix: str, kind: str, option: str = "--output") -> Path:
        """The same for a file that is no picture and ends in `suffix`; `kind` says what it is.

        Raises:
            InputError: another ending, a folder, a folder that cannot be written to, or an input of the run.
        """
        if path.suffix != suffix or is_folder(path):
            raise InputError(option, f"'{path}'", kind)
        if not is_folder(path.parent) or not os.access(path.parent, os.W_OK | os.X_OK):
            raise InputError(option, f"no folder '{path.parent}' to write to", "an existing, writable folder")
        self._check_not_input(path, option)
        return path

    def save(
        self,
        image: Image.Image,
        path: Path,
        record: dict[str, Any] | None = None,
        identity: str | None = None,
        option: str = "--output",
    ) -> Path:
        """Write a picture whole or not at all; the path it went to, which its record says too.

        Args:
            identity: `digest` of what makes it; default: of its record, or of its pixels.

        Raises:
            InputError: an input of the run. FreectlError: it cannot be written.
        """
        identity = identity or digest(image if record is None else record)
        with alone_in(path.parent):
            target = self._free(path, lambda taken: records.read_mark(taken) == identity, option)
            if record is not None:
                record["output"] = str(target)
            records.save_image(image, target, record, mark=identity, option=option)
        FINISHED.append(target)
        return target

    def write(self, path: Path, write: Callable[[Path], None], option: str = "--output") -> Path:
        """Let `write` make a file; one of the same content that is there already is replaced.

        Raises:
            InputError: an input of the run. FreectlError: it cannot be written.
        """
        made = path.with_name(f".freectl-{secrets.token_hex(8)}{path.suffix}")
        try:
            write(made)
            with alone_in(path.parent):
                target = self._free(path, lambda taken: _alike(made, taken), option)
                os.replace(made, target)
        except OSError as error:
            raise FreectlError(f"{option}: could not write '{path}': {error.strerror or error}") from error
        finally:
            made.unlink(missing_ok=True)
        FINISHED.append(target)
        return target

    def _free(self, path: Path, alike: Callable[[Path], bool], option: str) -> Path:
        """`path`, or the first numbered one that is free or holds a result of the same settings."""
        self._check_not_input(path, option)
        target = next(one for one in _numbered(path) if self._may_go(one, alike, self.overwrite and one == path))
        if target != path:
            self.notes.append(f"'{path}' holds something else: wrote '{target}' (--overwrite replaces it)")
        return target

    def _may_go(self, candidate: Path, alike: Callable[[Path], bool], overwrite: bool) -> bool:
        if not there(candidate):
            beside = records.sidecar(candidate)
            return overwrite or not (candidate.suffix.lower() in records.BESIDE and there(beside))
        if self._input(candidate) or is_folder(candidate):
            return False
        return overwrite or alike(candidate)

    def _check_not_input(self, target: Path, option: str) -> None:
        found = self._input(target)
        if found is not None:
            raise InputError(option, f"'{target}', the file of {found} itself", "another file")

    def _input(self, target: Path) -> str | None:
        written = [target, *([records.sidecar(target)] if target.suffix.lower() in records.BESIDE else [])]
        return next((option for option, path in self.inputs for one in written if same(one, path)), None)


def _alike(one: Path, other: Path) -> bool:
    """Whether two files hold the same: bytes, or in safetensors files tensors and metadata, whose order varies."""
    if filecmp.cmp(one, other, shallow=False):
        return True
    try:
        return one.suffix == ".safetensors" and _content(one) == _content(other)
    except Exception:  # readers raise whatever the damaged bytes lead them to
        return False


def _content(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return {"": file.metadata(), **{name: (one.dtype, one.shape, one.tobytes()) for name, one in tensors.items()}}


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")
