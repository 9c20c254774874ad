"""What a noisy latent is: x = a x0 + s n, with x0 the picture and n unit noise, on any schedule.

Variance-preserving models have a = sqrt(abar_t), s = sqrt(1 - abar_t); rectified flows a = 1 - sigma, s = sigma. From a
and s alone follow noising, the deterministic step x' = a' x0 + s' n (DDIM, arXiv 2010.02502, and Euler on a flow are
this one formula), inversion (the same upwards) and the stochastic step. A scheduler is read for its table and its grid
and never stepped: flow schedulers keep state.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

Clip = Callable[[Tensor], Tensor]


def clean_and_noise(kind: str, output: Tensor, latents: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted clean latents and noise of a network's output at x = a x0 + s n (Salimans & Ho, arXiv 2202.00512).

    Args:
        kind: "epsilon" (n), "v_prediction" (a n - s x0, with a^2 + s^2 = 1), "sample" (x0) or "velocity" (n - x0, with
            a + s = 1).

    Raises:
        ValueError: another kind.
    """
    if kind == "epsilon":
        return (latents - s * output) / a, output
    if kind == "v_prediction":
        return a * latents - s * output, a * output + s * latents
    if kind == "sample":
        return output, (latents - a * output) / s
    if kind == "velocity":
        return latents - s * output, latents + a * output
    raise ValueError(f"prediction_type: found {kind!r}; allowed: epsilon, v_prediction, sample, velocity")


@dataclass(frozen=True)
class Path(ABC):
    """A schedule of noise levels, and a sampling grid on it.

    A level is named by the network's time: 0 to 999 in Stable Diffusion, 1000 sigma on a flow. Immutable: `on` gives
    the same schedule with another grid.

    Attributes:
        kind: what the network predicts, as `clean_and_noise` has it.
        length: times lie from 0 up to this, exclusive where they are whole numbers.
        scheduler: read for its table and for grids; never changed.
        times: the sampling grid, descending; empty before `on`.
    """

    kind: str
    length: int
    scheduler: Any
    times: tuple[float, ...] = ()

    @abstractmethod
    def on(self, steps: int, **grid: Any) -> Self:
        """The path with the scheduler's grid of that many steps.

        Raises:
            InputError: the schedule has no such grid.
        """

    @abstractmethod
    def coefficients(self, time: float, dtype: torch.dtype | None = torch.float64) -> tuple[Tensor, Tensor]:
        """(a, s) of a level, scalars; below time 0 those of the clean picture as the schedule has it.

        Args:
            dtype: what they are computed in; None = the schedule's own, fp32 in diffusers.
        """

    @abstractmethod
    def below(self, time: float) -> float:
        """The level that a step from `time` leads to; may lie below 0, which stands for the clean picture."""

    def told(self, time: float) -> float:
        """The time that a network is given for a level: none is below 0."""
        return max(time, 0)

    def split(self, output: Tensor, latents: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """(x0, n) of a network's output for latents (B, C, h, w) at a level."""
        a, s = self._like(latents, time)
        return clean_and_noise(self.kind, output, latents, a, s)

    def joined(self, clean: Tensor, noise: Tensor, time: float) -> Tensor:
        """What the network would predict at a level for this picture and noise: the inverse of `split`."""
        a, s = self._like(clean, time)
        if self.kind == "v_prediction":
            return a * noise - s * clean
        return {"epsilon": noise, "sample": clean, "velocity": noise - clean}[self.kind]

    def noised(self, clean: Tensor, noise: Tensor, time: float) -> Tensor:
        """A x0 + s n at a level, with the rounding of diffusers' `add_noise`."""
        a, s = self.coefficients(time, clean.dtype)
        return a.to(clean.device) * clean + s.to(clean.device) * noise

    def mixed(self, clean: Tensor, noise: Tensor, time: float) -> Tensor:
        """A x0 + s n at a level, from exact coefficients: where a step or an inversion leads to."""
        a, s = self._like(clean, time)
        return a * clean + s * noise

    def noise_in(self, latents: Tensor, clean: Tensor, time: float) -> Tensor:
        """The n for which latents at a level are a x0 + s n."""
        a, s = self._like(clean, time)
        return (latents - a * clean) / s

    def step(
        self, output: Tensor, latents: Tensor, time: float, *, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """One level down: a' x0 + sqrt(s'^2 - d^2) n + d e, d = eta times `deviation` (arXiv 2010.02502, eq. 12).

        Coefficients are scalars of the schedule's own dtype, as in diffusers' samplers, so that equal runs are equal to
        the bit.

        Args:
            output: the network's (guided) output. noise: e, (B, C, h, w), where eta > 0.
        """
        here, below = self.coefficients(time, None), self.coefficients(self.below(time), None)
        clean, own = clean_and_noise(self.kind, output, latents, *here)
        clean = self._clip()(clean)
        if eta == 0 or noise is None:
            return below[0] * clean + below[1] * own
        kept, fresh = self._noises(time, eta)
        return below[0] * clean + kept * own + fresh * noise

    def deviation(self, time: float) -> Tensor:
        """Standard deviation of a step's fresh noise at eta 1 (arXiv 2010.02502, eq. 16); float64 scalar."""
        (_, s), (_, below) = self.coefficients(time), self.coefficients(self.below(time))
        return below / s * self._added(time)

    def renoised(self, latents: Tensor, noise: Tensor, time: float) -> Tensor:
        """Latents of the level below `time`, taken up to it again by fresh noise: the forward process of one step."""
        share = self.coefficients(time)[0] / self.coefficients(self.below(time))[0]
        return share.to(latents) * latents + self._added(time).to(latents) * noise

    def refreshed(self, latents: Tensor, noise: Tensor, share: float) -> Tensor:
        """Latents at the noisy end with a share, 0 to 1, of fresh noise; their variance stays what it is."""
        return math.sqrt(1 - share) * latents + math.sqrt(share) * noise

    def guidance_length(self, time: float) -> Tensor:
        """S s', the factor of an energy's gradient on the latents behind a step; float64 scalar.

        On both kinds of path the published update of arXiv 2312.07536 is x' - s s' grad.
        """
        return self.coefficients(time)[1] * self.coefficients(self.below(time))[1]

    def turn(self, time: float) -> float:
        """How far a step turns on the circle of (a, s), in radians: pi / 2 from noise to picture on any grid."""
        here, below = (torch.atan2(s, a) for a, s in (self.coefficients(t) for t in (time, self.below(time))))
        return float(here - below)

    def noise_level(self, time: float) -> float:
        """Sigma = s / (a + s), 0 to 1: one measure of noise for both kinds of path."""
        a, s = self.coefficients(time)
        return float(s / (a + s))

    def _noises(self, time: float, eta: float) -> tuple[Tensor, Tensor]:
        """Factors of the predicted and of the fresh noise behind a stochastic step."""
        s = self.coefficients(self.below(time), None)[1]
        fresh = eta * self.deviation(time)
        kept = (self.coefficients(self.below(time))[1].square() - fresh.square()).clamp(min=0).sqrt()
        return kept.to(s), fresh.to(s)

    def _added(self, time: float) -> Tensor:
        """Deviation of the noise that leads from the level below up to `time`."""
        (a, s), (below_a, below_s) = self.coefficients(time), self.coefficients(self.below(time))
        return (s.square() - (below_s * a / below_a).square()).clamp(min=0).sqrt()

    def _like(self, latents: Tensor, time: float) -> tuple[Tensor, Tensor]:
        a, s = self.coefficients(time)
        return a.to(latents), s.to(latents)

    def _clip(self) -> Clip:
        return lambda clean: clean


def number(time: Any) -> float:
    """A time out of a scheduler's tensor, whole numbers as such."""
    return time.item() if isinstance(time, Tensor) else time


def time_of(name: str) -> float:
    """The time whose `str` is `name`, whole numbers as such."""
    return int(name) if name.isdecimal() else float(name)
