"""Stopping a training by Ctrl-C or SIGTERM: between two steps, with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from freectl.errors import FreectlError


class StoppedError(FreectlError):
    """A training that a signal ended; the exit code is 128 and the signal's number."""

    def __init__(self, number: int, message: str) -> None:
        self.exit_code = 128 + number
        super().__init__(message)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """A list that receives the number of the first SIGINT or SIGTERM; the next one does what it always did.

    Only the main thread can set handlers; elsewhere the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
