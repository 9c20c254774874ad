"""DDIM inversion on the sampling grid (Song et al., arXiv 2010.02502, eq. 13 read as an ODE and run backwards)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from freectl.denoising.sampler import Denoiser, Prompt

Adjust = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(model output, latents, cumulative alpha) -> model output."""


@dataclass(frozen=True)
class Trajectory:
    """Latents of an inverted picture.

    Attributes:
        clean: (B, C, h, w), the encoded picture.
        levels: timestep -> latents at that timestep's noise level; the keys are the sampling grid.
    """

    clean: Tensor
    levels: dict[int, Tensor]

    @property
    def start(self) -> Tensor:
        """The latents from which sampling starts: those of the largest timestep."""
        return self.levels[max(self.levels)]

    @property
    def below(self) -> dict[int, Tensor]:
        """timestep -> latents of the next lower level, which a step from there leads to; the last is `clean`."""
        grid = sorted(self.levels, reverse=True)
        return dict(zip(grid, [*(self.levels[t] for t in grid[1:]), self.clean], strict=True))


def alpha_bar(scheduler: Any, timestep: int) -> Tensor:
    """Cumulative alpha of a timestep; below 0 the scheduler's value for the clean picture. float64 scalar."""
    value = scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod
    return value.double()


def previous_timestep(scheduler: Any, timestep: int) -> int:
    """The next lower timestep of the grid, as `DDIMScheduler.step` computes it; negative = the clean picture."""
    return timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps


def clean_and_noise(prediction_type: str, output: Tensor, latents: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted clean latents and noise of a model output at cumulative alpha `abar` (Salimans & Ho, 2202.00512).

    Raises:
        ValueError: unknown `prediction_type`.
    """
    a, s = abar.sqrt().to(latents), (1 - abar).sqrt().to(latents)
    if prediction_type == "epsilon":
        return (latents - s * output) / a, output
    if prediction_type == "v_prediction":
        return a * latents - s * output, a * output + s * latents
    if prediction_type == "sample":
        return output, (latents - a * output) / s
    raise ValueError(f"prediction_type: found {prediction_type!r}; allowed: epsilon, v_prediction, sample")


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    scheduler: Any,
    clean: Tensor,
    prompt: Prompt,
    timesteps: Sequence[int],
    on_step: Callable[[int], None] | None = None,
    *,
    evaluate_at: Literal["lower", "upper"] = "lower",
    adjust: Adjust | None = None,
) -> Trajectory:
    """Walk a clean latent up the sampling grid, without classifier-free guidance; one row a step.

    The noise that leads from one level to the next is predicted from the lower level's latents. `evaluate_at` says
    which level's timestep the network is given: "lower", the latents' own, as the ODE has it, or "upper", as diffusers'
    `DDIMInverseScheduler` and the published code have it. On the embedded v-prediction model "lower" reconstructs
    2.3 dB better.

    Args:
        clean: (B, C, h, w) scaled latents (VAE posterior mode).
        prompt: only `cond` is used.
        timesteps: the sampling grid, any order; `scheduler.set_timesteps` has been called.
        on_step: called with each timestep reached.
        adjust: changes each model output, given the latents and cumulative alpha it belongs to.
    """
    latents, levels = clean, {}
    kind = scheduler.config.prediction_type
    added = prompt.added.get("cond")
    for timestep in sorted(int(t) for t in timesteps):
        below = previous_timestep(scheduler, timestep)
        lower, upper = alpha_bar(scheduler, below), alpha_bar(scheduler, timestep)
        given = timestep if evaluate_at == "upper" else max(below, 0)
        output = denoiser.forward(latents, given, prompt.cond, dict(added) if added else None).to(latents.dtype)
        if adjust is not None:
            output = adjust(output, latents, lower)
        x0, noise = clean_and_noise(kind, output, latents, lower)
        latents = upper.sqrt().to(latents) * x0 + (1 - upper).sqrt().to(latents) * noise
        levels[timestep] = latents
        if on_step is not None:
            on_step(timestep)
    return Trajectory(clean, levels)
