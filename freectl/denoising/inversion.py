"""Inversion on the sampling grid: DDIM's step (arXiv 2010.02502, eq. 13 read as an ODE), or a flow's, run backwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from freectl.denoising.inverters import SCHEMES, Inverter, Level, moved
from freectl.denoising.path import Path, number
from freectl.denoising.sampler import Denoiser, Lane, Prompt, of_lane, row_keys

Split = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Model output -> (clean latents, noise)."""
Adjust = Callable[[Tensor, Split, float], Tensor]
"""(model output, how it is split, the level that it is of) -> model output."""


@dataclass(frozen=True)
class Trajectory:
    """Latents of an inverted picture.

    Attributes:
        clean: (B, C, h, w), the encoded picture.
        levels: time -> latents at that noise level; the keys are the sampling grid.
    """

    clean: Tensor
    levels: dict[float, Tensor]

    @property
    def start(self) -> Tensor:
        """The latents from which sampling starts: those of the largest time."""
        return self.levels[max(self.levels)]

    @property
    def below(self) -> dict[float, Tensor]:
        """time -> latents of the next lower level, which a step from there leads to; the last is `clean`."""
        grid = sorted(self.levels, reverse=True)
        return dict(zip(grid, [*(self.levels[t] for t in grid[1:]), self.clean], strict=True))


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    path: Path,
    clean: Tensor,
    prompt: Prompt,
    timesteps: Sequence[float],
    on_step: Callable[[float], None] | None = None,
    *,
    evaluate_at: Level = "lower",
    guidance_scale: float = 1.0,
    adjust: Adjust | None = None,
    inverter: Inverter = "euler",
) -> Trajectory:
    """Walk a clean latent up the sampling grid, as a rule without classifier-free guidance.

    The noise that leads from one level to the next is predicted from the lower level's latents. `evaluate_at` says
    which level's time the network is given: "lower", the latents' own, as the ODE has it, or "upper", as diffusers'
    `DDIMInverseScheduler` and the published code have it. On the embedded v-prediction model "lower" reconstructs
    2.3 dB better.

    Args:
        path: with the sampling grid. clean: (B, C, h, w) scaled latents (VAE posterior mode).
        prompt: `uncond` is used only where guidance is asked for, two rows a step.
        timesteps: the sampling grid, any order.
        on_step: called with each time reached.
        guidance_scale: as in sampling; 1 = none.
        adjust: changes each model output, given how its noise is read.
        inverter: how steps are taken; others than Euler's rule on flows alone, whose levels lie densely.
    """
    latents, levels = clean, {}
    if guidance_scale == 1:
        prompt = replace(prompt, uncond=None)

    def field(latents: Tensor, level: float, told: float) -> Tensor:
        lane = Lane(latents, prompt, guidance_scale)
        outputs = denoiser.rows({"picture": lane}, row_keys({"picture": lane}), told)
        output = denoiser.guided(lane, of_lane(outputs, "picture")).to(latents.dtype)
        return output if adjust is None else adjust(output, partial(path.split, latents=latents, time=level), level)

    scheme = SCHEMES[inverter](path, evaluate_at)
    for time in sorted(map(number, timesteps)):
        below = path.below(time)
        latents = moved(path, scheme.output(field, latents, below, time), latents, below, time)
        levels[time] = latents
        if on_step is not None:
            on_step(time)
    return Trajectory(clean, levels)
