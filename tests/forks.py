"""Processes of a test's own that start where this one stands, so nothing is imported again."""

import multiprocessing
import os
import sys
from collections.abc import Callable


class Fork:
    """`work()` in a process of its own, already running; what it prints is read from `stdout`."""

    def __init__(self, work: Callable[[], object]) -> None:
        out, into = os.pipe()
        self.process = multiprocessing.get_context("fork").Process(target=_run, args=(work, into), daemon=True)
        self.process.start()
        os.close(into)
        self.stdout = open(out)  # noqa: SIM115 - read by the test, closed with it

    def kill(self) -> None:
        """End it as `kill -9` does, and wait for that."""
        self.process.kill()
        self.wait()

    def wait(self, seconds: float = 100) -> int | None:
        """Its exit code, negative the signal that ended it; None if it has not ended in `seconds`."""
        self.process.join(seconds)
        return self.process.exitcode


def _run(work: Callable[[], object], into: int) -> None:
    sys.stdout = sys.stderr = open(into, "w", buffering=1)  # noqa: SIM115 - until the process ends
    work()
