"""Python's garbage collector in a process that loads a model once, uses it and ends.

Importing and loading make millions of objects that live until the end. To look through them again and again, and once
more at the end, takes longer than to make them.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_state = {"held": False, "frozen": False}


@contextmanager
def held() -> Iterator[None]:
    """No collection in the `with` body until `settle`, for commands that load a model; afterwards as before."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    _state["held"] = True
    try:
        yield
    finally:
        _state["held"] = False
        gc.enable()


def settle() -> None:
    """Everything is loaded: collect again where collection is `held`, but nothing that is there by now.

    Elsewhere it does nothing: a caller's own objects are his to collect. A process freezes once, and again at its end,
    when all of it goes.
    """
    if not _state["held"]:
        return
    _state["held"] = False
    gc.enable()
    if not _state["frozen"]:
        _state["frozen"] = True
        gc.freeze()
        atexit.register(gc.freeze)


@contextmanager
def paused() -> Iterator[None]:
    """No collection in the `with` body; afterwards as before."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
