"""How an inversion steps up a flow: which velocity leads from a level to the next one.

All of them move latents along one velocity, x' = x + (s' - s) v; they differ in where v is read. Sampling is Euler's
rule downwards, so that two things count: how well a scheme follows the flow, and how well Euler's steps undo it.

- euler: v of the level itself; first order, and undone up to first order.
- midpoint: v half way, where v of the level leads; second order at two rows a step. The second-order Taylor step of
  RF-Solver (Wang et al., arXiv 2411.04746), whose derivative is a difference over half a step, is the same numbers.
- fireflow: the same with the last step's middle in place of v of the level (Deng et al., arXiv 2412.07517): second
  order at one row a step, and one more.
- uniedit: v of the next level, where the last velocity leads (Uni-Inv, Jiao et al., arXiv 2504.13109), which is what
  Euler's step downwards reads there: undone up to second order, at one row a step, and one more.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from freectl.denoising.path import Path

Inverter = Literal["euler", "midpoint", "fireflow", "uniedit"]
Level = Literal["lower", "upper"]
"""Of two levels the one that latents are at before an inversion's step, or behind it."""
Field = Callable[[Tensor, float, float], Tensor]
"""(latents, the level that they are at, the time that the network is told) -> output of the network."""


def moved(path: Path, output: Tensor, latents: Tensor, time: float, to: float) -> Tensor:
    """Latents (B, C, h, w) at a level, taken to another one along an output of the network."""
    return path.mixed(*path.split(output, latents, time), to)


class Scheme:
    """Euler's rule, and base of the others. One for a walk: some remember the last step.

    Args:
        path: of the levels. evaluate_at: whose time the network is told by Euler's rule.
    """

    def __init__(self, path: Path, evaluate_at: Level = "lower") -> None:
        self.path, self.evaluate_at = path, evaluate_at
        self.last: Tensor | None = None

    def output(self, field: Field, latents: Tensor, below: float, time: float) -> Tensor:
        """The output that the step from `below` up to `time` is taken with, from latents (B, C, h, w)."""
        return field(latents, below, time if self.evaluate_at == "upper" else self.path.told(below))

    @staticmethod
    def rows(steps: int) -> int:
        """Outputs that so many steps take."""
        return steps

    def first(self, field: Field, latents: Tensor, below: float) -> Tensor:
        """The last step's velocity; before the first step that of its level."""
        return field(latents, below, self.path.told(below)) if self.last is None else self.last


class Midpoint(Scheme):
    """As the module says."""

    def output(self, field: Field, latents: Tensor, below: float, time: float) -> Tensor:
        """As `Scheme.output`."""
        middle = (max(below, 0.0) + time) / 2
        there = moved(self.path, self.first(field, latents, below), latents, below, middle)
        return field(there, middle, middle)

    @staticmethod
    def rows(steps: int) -> int:
        """Two a step."""
        return 2 * steps


class FireFlow(Midpoint):
    """As the module says."""

    def output(self, field: Field, latents: Tensor, below: float, time: float) -> Tensor:
        """As `Scheme.output`."""
        self.last = super().output(field, latents, below, time)
        return self.last

    @staticmethod
    def rows(steps: int) -> int:
        """One a step, and one before the first."""
        return steps + 1


class UniEdit(Scheme):
    """As the module says."""

    def output(self, field: Field, latents: Tensor, below: float, time: float) -> Tensor:
        """As `Scheme.output`."""
        there = moved(self.path, self.first(field, latents, below), latents, below, time)
        self.last = field(there, time, time)
        return self.last

    @staticmethod
    def rows(steps: int) -> int:
        """One a step, and one before the first."""
        return steps + 1


SCHEMES: dict[Inverter, type[Scheme]] = {
    "euler": Scheme,
    "midpoint": Midpoint,
    "fireflow": FireFlow,
    "uniedit": UniEdit,
}
READS_LEVELS = ("euler", "midpoint")
"""Those that put every level but the last one through the network as it is."""
