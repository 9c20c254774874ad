"""Seconds of a plain step, of a guided one and of a whole edit, and the peak of memory, from one run."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from PIL import Image

HEAD = "| model | how | plain step, s | guided step, s | edit, s | row forwards | peak, GiB |\n" + "|---" * 7 + "|"


@dataclass(frozen=True)
class Measured:
    """Of one edit; the seconds are medians over its steps."""

    plain: float
    guided: float
    edit: float
    rows: float
    peak_gib: float

    def line(self, model: str, how: str) -> str:
        """A line of the table."""
        return (
            f"| {model} | {how} | {self.plain:.3f} | {self.guided:.3f} | {self.edit:.1f} | {self.rows:.1f} "
            f"| {self.peak_gib:.2f} |"
        )


def measured(pipe: Any, image: Image.Image, steps: int = 50, **settings: Any) -> Measured:
    """Edit a picture by FreeControl's defaults, without the cache.

    Args:
        settings: of the method or the call, instead of the defaults.
    """
    ends: list[float] = []

    def tick(_pipe: Any, _index: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        _wait()
        ends.append(perf_counter())
        return {}

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    _wait()
    start = perf_counter()
    result = pipe(
        "a cat", image, num_inference_steps=steps, callback_on_step_end=tick, cache=None,
        generator=torch.Generator().manual_seed(0), **settings,
    )  # fmt: skip
    _wait()
    whole = perf_counter() - start
    seconds = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    guided = len(result.trace)
    return Measured(
        plain=_median(seconds[guided:]), guided=_median(seconds[: max(0, guided - 1)]), edit=whole,
        rows=float(result.cost["row_forwards"]), peak_gib=(result.cost["peak_memory_mb"] or 0.0) / 1024,
    )  # fmt: skip


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else float("nan")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
