"""Schedules as functions of time: nothing to save, nothing to restore."""


def linear(start: float, end: float, progress: float) -> float:
    """Line from `start` at progress 0 to `end` at progress 1; progress outside is clamped."""
    t = min(max(progress, 0.0), 1.0)
    return (1 - t) * start + t * end


def decay_factor(unit: int, constant: int, decaying: int) -> float:
    """Learning-rate factor in the 0-based epoch (or step) `unit`: 1 for `constant` units, then linear over `decaying`.

    1 - max(0, unit + 1 - constant) / (decaying + 1): the last unit still learns, at 1 / (decaying + 1).
    """
    return 1.0 - max(0, unit + 1 - constant) / (decaying + 1)
