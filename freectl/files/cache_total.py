"""How many bytes a cache holds, kept in one small file, so that a write need not look at every entry."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from freectl.files.atomic import STALE_SECONDS


class RunningTotal:
    """The bytes of a folder's entries, shared by all processes that write there.

    It is told of an entry before that is written, so that a process killed in between leaves it too high and never too
    low; removed and replaced entries leave it too high as well, until the next count.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / ".total"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only this process reads and changes the total in the `with` body.

        Raises:
            OSError: the folder cannot be written. NotImplementedError: it has no locks.
        """
        with FileLock(self.path.with_suffix(".lock")):
            yield

    def add(self, size: int) -> int | None:
        """Add an entry's bytes; the total, or None where it has to be counted: unknown, or counted long ago."""
        try:
            count, counted = self.path.read_text(encoding="ascii").split()
            total, age = int(count) + size, time.time() - float(counted)
        except (OSError, ValueError):
            return None
        self._write(total, float(counted))
        return total if 0 <= age < STALE_SECONDS else None

    def set(self, total: int) -> None:
        """What has been counted just now."""
        self._write(total, time.time())

    def forget(self) -> None:
        """Entries were removed: count again at the next write."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            # who waits on the lock may now count beside another: the next count puts that right
            self.path.with_suffix(".lock").unlink(missing_ok=True)

    def _write(self, total: int, counted: float) -> None:
        # neither synced nor renamed: what a crash leaves half of lacks a number or was counted long ago
        with suppress(OSError):
            self.path.write_text(f"{total} {counted!r}", encoding="ascii")
