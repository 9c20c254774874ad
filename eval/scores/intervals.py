"""Means with 95 % intervals over cases, and differences of methods on the same cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
Z = 1.959964
"""Of the normal distribution, at that level."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` cases and its interval; without resampling (one case) the interval is the mean."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval leaves out zero; one case has none."""
        return self.count > 1 and (self.low > 0 or self.high < 0)


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to estimate a mean from")
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = data[generator.integers(0, len(data), (RESAMPLES, len(data)))].mean(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(data.mean()), float(low), float(high), len(data))


def share(values: Sequence[float]) -> Estimate:
    """Mean of values 0 and 1 with Wilson's interval: a bootstrap of equal values would claim to be certain.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to estimate a mean from")
    mean = float(np.mean(values))
    return Estimate(mean, *wilson(mean, len(values)), len(values))


def wilson(mean: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), at a level of 95 %.

    For means of values between 0 and 1 it is wide enough as well, since none vary more than a share does.
    """
    centre = (mean + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(mean * (1 - mean) / count + Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(ours: Sequence[float], base: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of ours - base, case by case: the spread between cases cancels.

    Raises:
        ValueError: of different lengths, or empty.
    """
    return estimate([a - b for a, b in zip(ours, base, strict=True)], seed)


def share_difference(ours: Sequence[float], base: Sequence[float]) -> Estimate:
    """Mean of ours - base of values 0 and 1, case by case, with Bonett and Price's interval (2012), at 95 %.

    Adds one case to each way of differing before taking the normal interval. A bootstrap would call 4 differences of
    240 in one direction clear of zero, which McNemar's exact test does not, and no difference at all certain.

    Raises:
        ValueError: of different lengths, or empty.
    """
    if not ours:
        raise ValueError("no values to estimate a mean from")
    differences = [a - b for a, b in zip(ours, base, strict=True)]
    count = len(differences)
    up, down = ((differences.count(way) + 1) / (count + 2) for way in (1, -1))
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return Estimate(sum(differences) / count, max(-1.0, up - down - half), min(1.0, up - down + half), count)
