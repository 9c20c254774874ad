"""Files become visible whole or not at all."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 3600
"""A temporary file this old belongs to a process that was killed: writing one takes seconds."""

FINISHED: list[Path] = []
"""Results that the command has written, in order; told when it is interrupted."""


@contextmanager
def atomic_write(path: str | Path, tag: str = "freectl") -> Iterator[BinaryIO]:
    """Yield a binary stream whose bytes appear at `path` only when the block ends without an exception.

    The bytes go to `.<tag>-<random>.tmp` in the same folder, are synced, then renamed; any exception removes it. What
    killed processes have left there is removed too.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    sweep(path.parent, tag)
    temporary = path.parent / f".{tag}-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs that choose a name in it, other processes' too; leaves no file there.

    Where the system or the folder's file system has no such locks, runs are not held.
    """
    with ExitStack() as held:
        with suppress(ImportError, OSError):
            import fcntl

            place = os.open(folder, os.O_RDONLY)
            held.callback(os.close, place)
            fcntl.flock(place, fcntl.LOCK_EX)
        yield


def sweep(folder: Path, tag: str = "freectl", older: float = STALE_SECONDS) -> None:
    """Remove temporary files of `tag` that have been there for `older` seconds, -inf: all of them; never fails."""
    name = re.compile(rf"\.{re.escape(tag)}-[0-9a-f]{{16}}\.\w+")
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if name.fullmatch(entry.name) and time.time() - entry.stat().st_mtime >= older:
                    os.unlink(entry.path)
