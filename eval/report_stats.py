"""Means with 95 % bootstrap intervals over cases, and differences of methods on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` cases and its interval; without resampling (one case) the interval is the mean."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


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


def difference(ours: Sequence[float], base: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of ours - base, case by case: the spread between cases cancels.

    Raises:
        ValueError: of different lengths, or empty.
    """
    return estimate([a - b for a, b in zip(ours, base, strict=True)], seed)
