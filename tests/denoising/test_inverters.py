"""Inversions up a flow: their order on fields with known solutions, the published rules written out, and rows."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from freectl.denoising.inversion import invert
from freectl.denoising.inverters import SCHEMES
from freectl.denoising.sampler import Denoiser, Lane, Prompt, sample
from freectl.denoising.schedules import path_of

Velocity = Callable[[Tensor, float], Tensor]
CLEAN = torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 2, 2, 2)
PROMPT = Prompt(torch.zeros(1, 1, 1, dtype=torch.float64))
PATH = path_of(FlowMatchEulerDiscreteScheduler(shift=1.0))


def grid(steps: int):
    return PATH.on(steps, sigmas=[1 - i / steps for i in range(steps)])


class Field:
    """A velocity in place of a network, told 1000 sigma; counts its rows and remembers what it was asked."""

    def __init__(self, velocity: Velocity) -> None:
        self.asked: list[tuple[Tensor, float]] = []

        def call(_network, latents, time, _embeds, _added, _kwargs):
            self.asked.append((latents, float(time)))
            return velocity(latents, float(time) / 1000)

        self.denoiser = Denoiser(nn.Identity(), call)


def turning(x: Tensor, s: float) -> Tensor:
    """dx/ds = (cos(3 s) - s / 2) x, whose solution is x_0 exp(sin(3 s) / 3 - s^2 / 4)."""
    return (math.cos(3 * s) - s / 2) * x


END = CLEAN * math.exp(math.sin(3.0) / 3 - 0.25)


def error(inverter: str, steps: int) -> float:
    path = grid(steps)
    trajectory = invert(Field(turning).denoiser, path, CLEAN, PROMPT, path.times, inverter=inverter)
    return float((trajectory.start - END).abs().max())


@pytest.mark.parametrize(("inverter", "order"), [("euler", 1), ("midpoint", 2), ("fireflow", 2), ("uniedit", 1)])
def test_the_error_falls_with_the_order_of_the_scheme(inverter, order):
    """A quarter of the step: 4 times less at order 1, 16 times at order 2."""
    assert math.log(error(inverter, 160) / error(inverter, 640), 4) == pytest.approx(order, abs=0.1)


def back(inverter: str, steps: int) -> float:
    """How far Euler's steps down from the inversion end from the picture."""
    path = grid(steps)
    field = Field(turning)
    start = invert(field.denoiser, path, CLEAN, PROMPT, path.times, inverter=inverter).start
    found = sample(field.denoiser, path, {"edit": Lane(start, PROMPT)}, path.times)["edit"].latents
    return float((found - CLEAN).abs().max())


@pytest.mark.parametrize(("inverter", "order"), [("euler", 1), ("midpoint", 1), ("fireflow", 1), ("uniedit", 2)])
def test_eulers_steps_down_undo_uniedits_to_second_order(inverter, order):
    assert math.log(back(inverter, 160) / back(inverter, 640), 4) == pytest.approx(order, abs=0.1)
    assert back("uniedit", 40) < 0.2 * min(back(name, 40) for name in ("euler", "midpoint", "fireflow"))


def bent(x: Tensor, s: float) -> Tensor:
    return torch.sin(x + 2 * s)


def by_rf_solver(x: Tensor, levels: list[float]) -> Tensor:
    """Arxiv 2411.04746: x + h v + h^2 / 2 v', v' a difference over half a step along v."""
    for s, up in zip(levels, levels[1:], strict=False):
        h, v = up - s, bent(x, s)
        slope = (bent(x + h / 2 * v, s + h / 2) - v) / (h / 2)
        x = x + h * v + h**2 / 2 * slope
    return x


def by_fireflow(x: Tensor, levels: list[float]) -> Tensor:
    """Arxiv 2412.07517: the velocity of the last midpoint leads to the next one."""
    v = bent(x, levels[0])
    for s, up in zip(levels, levels[1:], strict=False):
        v = bent(x + (up - s) / 2 * v, (s + up) / 2)
        x = x + (up - s) * v
    return x


def by_uniedit(x: Tensor, levels: list[float]) -> Tensor:
    """Arxiv 2504.13109: where the last velocity leads, the next level's own is read."""
    v = bent(x, levels[0])
    for s, up in zip(levels, levels[1:], strict=False):
        v = bent(x + (up - s) * v, up)
        x = x + (up - s) * v
    return x


@pytest.mark.parametrize(
    ("inverter", "published", "rows"),
    [("midpoint", by_rf_solver, 8), ("fireflow", by_fireflow, 5), ("uniedit", by_uniedit, 5)],
)
def test_published_rules_are_written_out(inverter, published, rows):
    """On a grid of uneven steps; the rows that are asked are those that are counted."""
    path, field = PATH.on(4, sigmas=[1.0, 0.8, 0.5, 0.1]), Field(bent)
    got = invert(field.denoiser, path, CLEAN, PROMPT, path.times, inverter=inverter).start
    torch.testing.assert_close(got, published(CLEAN, [0.0, 0.1, 0.5, 0.8, 1.0]), rtol=1e-6, atol=1e-7)
    assert len(field.asked) == rows == SCHEMES[inverter].rows(4)


def test_midpoints_read_every_level_as_it_is():
    """What is read beside the inversion of a guidance picture is read at its levels."""
    path = grid(4)
    for inverter in ("euler", "midpoint"):
        field = Field(bent)
        trajectory = invert(field.denoiser, path, CLEAN, PROMPT, path.times, inverter=inverter)
        passed = {time: x for x, time in field.asked}
        assert all(torch.equal(passed[time], trajectory.levels[time]) for time in path.times[1:])
