"""Ctrl-C and SIGTERM end a training after the step that they fall into."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """What was asked for: `number` is the signal's, or 0."""

    number = 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Take note; a second signal ends the process as it would have."""
        self.number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within, the first SIGINT or SIGTERM is only noted. Outside of the main thread nothing is caught."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
