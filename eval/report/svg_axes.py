"""Axes of plots: their range, and where their ticks stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Range and scale of one axis; `log` needs values above 0."""

    title: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where the value lies, 0 to 1 inside the range."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values inside the range, 2 to 12 of them."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            fine = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            found = [value for value in fine if self.low <= value <= self.high]
            if len(found) > 1:
                return found
        step = nice_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(span: float, count: int = 5) -> float:
    """1, 2 or 5 times a power of ten, such that about `count` steps make the span."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def axis(title: str, values: Sequence[float], *, log: bool = False, limits: Interval | None = None) -> Axis:
    """An axis that holds all values with room at both ends; `limits` are not passed.

    Raises:
        ValueError: no finite value.
    """
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        raise ValueError(f"no value for the axis '{title}'")
    low, high = min(finite), max(finite)
    if log:
        return Axis(title, low / 1.3, high * 1.3, log=True)
    room = 0.06 * (high - low) or 0.1 * (abs(high) or 1.0)
    low, high = low - room, high + room
    if limits:
        low, high = max(low, limits[0] - room / 2), min(high, limits[1] + room / 2)
    return Axis(title, low, high)
