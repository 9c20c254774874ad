"""The two kinds of path (`freectl.denoising.path`), read off diffusers' schedulers."""

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from freectl.denoising.path import Clip, Path
from freectl.errors import InputError


@dataclass(frozen=True)
class VariancePreserving(Path):
    """DDPM-type schedules: a = sqrt(abar), s = sqrt(1 - abar), from a table of whole times.

    Attributes:
        stride: how far below a time its next lower level lies, as diffusers' DDIM has it.
    """

    stride: int = 0

    def on(self, steps: int, **grid: Any) -> Self:
        """DDIM's grid of that many steps; takes no other arguments."""
        if not 1 <= steps <= self.length:
            raise InputError("--steps", str(steps), f"1 to {self.length}, the length of the model's schedule")
        scheduler = copy.copy(self.scheduler)
        scheduler.set_timesteps(steps, device="cpu", **grid)
        times = tuple(int(t) for t in scheduler.timesteps)
        if max(times) >= self.length:  # an offset moves the full schedule past its end
            raise InputError("--steps", str(steps), f"1 to {self.length - 1}, the length of the model's schedule")
        return replace(self, times=times, stride=self.length // steps)

    def coefficients(self, time: float, dtype: torch.dtype | None = torch.float64) -> tuple[Tensor, Tensor]:
        """From the scheduler's table of cumulative alphas."""
        abar = self._abar(time) if dtype is None else self._abar(time).to(dtype)
        return abar.sqrt(), (1 - abar).sqrt()

    def _noises(self, time: float, eta: float) -> tuple[Tensor, Tensor]:
        # in the order of diffusers' DDIM, whose rounding this has
        here, below = self._abar(time), self._abar(self.below(time))
        fresh = eta * ((1 - below) / (1 - here) * (1 - here / below)).sqrt()
        return (1 - below - fresh**2).sqrt(), fresh

    def _abar(self, time: float) -> Tensor:
        return self.scheduler.alphas_cumprod[int(time)] if time >= 0 else self.scheduler.final_alpha_cumprod

    def below(self, time: float) -> int:
        """The next lower time of the grid, by its stride."""
        return int(time) - self.stride

    def _clip(self) -> Clip:
        config = self.scheduler.config
        if config.thresholding:
            return _numbers_alone(self.scheduler._threshold_sample)
        if config.clip_sample:
            return _numbers_alone(lambda clean: clean.clamp(-config.clip_sample_range, config.clip_sample_range))
        return super()._clip()


@dataclass(frozen=True)
class RectifiedFlow(Path):
    """Flow matching on straight lines (arXiv 2209.03003): a = 1 - sigma, s = sigma, time = sigma times `length`.

    Attributes:
        levels: sigma of each of `times` as the scheduler has it, which a time in fp32 does not always lead back to.
    """

    levels: tuple[float, ...] = ()

    def on(self, steps: int, **grid: Any) -> Self:
        """The scheduler's grid; `grid` are further arguments of its `set_timesteps`, such as sigmas or mu."""
        least = 2 if self.scheduler.config.get("shift_terminal") else 1  # one level cannot end both at 1 and below
        if steps < least:
            raise InputError("--steps", str(steps), f"{least} or more")
        scheduler = copy.copy(self.scheduler)
        scheduler.set_timesteps(steps, **grid)
        levels = tuple(float(sigma) for sigma in scheduler.sigmas[:-1])
        return replace(self, times=tuple(float(t) for t in scheduler.timesteps), levels=levels)

    def coefficients(self, time: float, dtype: torch.dtype | None = torch.float64) -> tuple[Tensor, Tensor]:
        """(1 - sigma, sigma), the former of the latter as it is rounded, as in diffusers' `scale_noise`."""
        known = dict(zip(self.times, self.levels, strict=False))
        level = known.get(time, max(float(time), 0.0) / self.length)
        sigma = torch.tensor(level, dtype=dtype or torch.float32)
        return 1 - sigma, sigma

    def step(
        self, output: Tensor, latents: Tensor, time: float, *, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """As `Path.step`, in fp32 at least; without noise x + (s' - s) v, with the rounding of diffusers' samplers."""
        wide = torch.promote_types(latents.dtype, torch.float32)
        output, x = output.to(wide), latents.to(wide)
        if eta == 0 or noise is None:
            here, below = (self.coefficients(one, None)[1] for one in (time, self.below(time)))
            return (x + (below - here) * output).to(latents.dtype)
        return super().step(output, x, time, eta=eta, noise=noise.to(wide)).to(latents.dtype)

    def below(self, time: float) -> float:
        """The next lower time of the grid; behind the last one 0."""
        return next((one for one in self.times if one < time), 0.0)


def _numbers_alone(clip: Clip) -> Clip:
    """A clip that leaves infinity as it is: cut to the bound it would pass for a picture."""
    return lambda clean: torch.where(torch.isfinite(clean), clip(clean), clean)


def path_of(scheduler: Any) -> Path:
    """The path of a diffusers scheduler; of a stochastic or higher-order one, its noise schedule read as DDIM's.

    Raises:
        InputError: a scheduler of neither kind.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return RectifiedFlow("velocity", scheduler.config.num_train_timesteps, scheduler)
    if getattr(scheduler, "alphas_cumprod", None) is None:
        found = f"a {type(scheduler).__name__}"
        raise InputError("scheduler", found, "one with a table of alphas, or FlowMatchEulerDiscreteScheduler")
    scheduler = ddim(scheduler)
    return VariancePreserving(scheduler.config.prediction_type, scheduler.config.num_train_timesteps, scheduler)


def ddim(scheduler: Any) -> DDIMScheduler:
    """The scheduler as DDIM, which inversion needs; the noise schedule and prediction type stay."""
    if isinstance(scheduler, DDIMScheduler):
        return scheduler
    known = {name: scheduler.config.get(name, False) for name in ("clip_sample", "set_alpha_to_one")}
    return DDIMScheduler.from_config(scheduler.config, **known)
