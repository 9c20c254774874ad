"""A folder of results that grows line by line and survives being killed: a lock, whole JSON lines, nothing torn."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from freectl.errors import FreectlError, InputError
from freectl.files.atomic import atomic_write
from freectl.files.paths import is_file
from freectl.files.record import dumps

Line = dict[str, Any]


@contextmanager
def locked(folder: Path, option: str = "--out") -> Iterator[Path]:
    """Keep other runs out of a folder, which is made if missing.

    Raises:
        InputError: the folder cannot be made.
        FreectlError: another run is writing to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FreectlError(f"{option}: another run is writing to '{folder}'") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(option, f"'{folder}', {reason}", "a writable folder") from error
    try:
        yield folder
    finally:
        lock.release()


def append(path: Path, line: Line, option: str = "--out") -> None:
    """Add one line, on disk when this returns.

    Raises:
        FreectlError: the disk is full or the file not writable.
        ValueError: a number in it is NaN or infinite.
    """
    raw = f"{dumps(line)}\n".encode()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, raw) < len(raw):
                raise OSError("disk full")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise FreectlError(f"{option}: could not write '{path}': {error.strerror or error}") from error


def lines(path: Path, whole: Callable[[Line], bool]) -> tuple[list[Line], bool]:
    """The lines that are JSON objects and `whole`, and whether there were others; none where there is no file.

    Args:
        whole: whether a line has what it must; what it raises for odd values counts as no.
    """
    if not is_file(path):
        return [], False
    *ended, rest = path.read_bytes().split(b"\n")
    good, damaged = [], bool(rest)
    for raw in ended:
        try:
            line = json.loads(raw)
            fits = isinstance(line, dict) and whole(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if fits:
            good.append(line)
        damaged |= not fits
    return good, damaged


def rewrite(path: Path, kept: list[Line], option: str = "--out") -> None:
    """Replace all lines at once.

    Raises:
        FreectlError: the disk is full or the folder not writable.
    """
    try:
        with atomic_write(path) as stream:
            for line in kept:
                stream.write(f"{dumps(line)}\n".encode())
    except OSError as error:
        raise FreectlError(f"{option}: could not write '{path}': {error.strerror or error}") from error
