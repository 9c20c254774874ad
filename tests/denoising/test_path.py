"""The path x = a x0 + s n against diffusers' schedulers, a Gaussian model with a known flow, and itself."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
)
from torch import Tensor, nn
from toy import denoiser_of, toy_scheduler

from freectl.denoising.inversion import invert
from freectl.denoising.path import Path, clean_and_noise, time_of
from freectl.denoising.sampler import Lane, Prompt, sample
from freectl.denoising.schedules import RectifiedFlow, path_of
from freectl.errors import InputError

SHAPE = (2, 4, 8, 8)
KINDS = ["epsilon", "v_prediction", "sample"]


def normal(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flow(shift: float = 3.0) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def paths() -> list[Path]:
    return [path_of(toy_scheduler()).on(7), path_of(flow()).on(7)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("clip", [False, True])
def test_a_step_is_diffusers_ddim_to_the_bit(kind, spacing, clip):
    """Seven steps do not divide the schedule: the levels below are DDIM's own, not the grid's."""
    scheduler = DDIMScheduler.from_config(
        toy_scheduler(kind).config, timestep_spacing=spacing, clip_sample=clip, clip_sample_range=0.5
    )
    path = path_of(scheduler).on(7)
    scheduler.set_timesteps(7)
    assert list(path.times) == scheduler.timesteps.tolist()
    for time in path.times:
        output, x = normal(1), normal(2)
        assert torch.equal(path.step(output, x, time), scheduler.step(output, time, x).prev_sample)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_a_stochastic_step_is_diffusers_to_the_bit(kind, eta):
    scheduler = toy_scheduler(kind)
    path = path_of(scheduler).on(10)
    scheduler.set_timesteps(10)
    for time in path.times:
        output, x, noise = normal(1), normal(2), normal(3)
        expected = scheduler.step(output, time, x, eta=eta, variance_noise=noise).prev_sample
        assert torch.equal(path.step(output, x, time, eta=eta, noise=noise), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noising_is_diffusers_to_the_bit(dtype):
    scheduler, clean, noise = toy_scheduler(), normal(1, dtype), normal(2, dtype)
    for time in (0, 1, 500, 999):
        expected = scheduler.add_noise(clean, noise, torch.tensor([time]))
        assert torch.equal(path_of(scheduler).noised(clean, noise, time), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_a_flow_step_is_eulers(shift, steps):
    scheduler = flow(shift)
    path = path_of(scheduler).on(steps)
    scheduler.set_timesteps(steps)
    assert list(path.times) == scheduler.timesteps.tolist()
    x = y = normal(1)
    for i, time in enumerate(path.times):
        velocity = normal(10 + i)
        x = path.step(velocity, x, time)
        y = scheduler.step(velocity, scheduler.timesteps[i], y).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
    fresh = flow(shift)
    fresh.set_timesteps(steps)
    expected = fresh.scale_noise(normal(1), fresh.timesteps[:1], normal(2))
    torch.testing.assert_close(path.noised(normal(1), normal(2), path.times[0]), expected, rtol=1e-6, atol=1e-6)


def test_a_flows_grid_takes_the_schedulers_arguments():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = [1.0, 0.75, 0.5, 0.25]
    path = path_of(scheduler).on(4, sigmas=sigmas, mu=0.8)
    scheduler.set_timesteps(4, sigmas=sigmas, mu=0.8)
    assert list(path.times) == scheduler.timesteps.tolist()
    assert path.times[0] == 1000 > path.times[1]


def test_a_flow_that_ends_above_zero_needs_two_levels():
    """One level cannot be both 1, where noise is drawn, and `shift_terminal`."""
    path = path_of(FlowMatchEulerDiscreteScheduler(shift_terminal=0.02))
    with pytest.raises(InputError, match="--steps: found 1; allowed: 2 or more"):
        path.on(1)
    levels = path.on(2).levels
    assert levels[0] == pytest.approx(1)
    assert levels[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("kind", [*KINDS, "velocity"])
def test_splitting_and_joining_are_inverse(kind):
    base = path_of(flow()) if kind == "velocity" else path_of(toy_scheduler(kind))
    clean, noise = normal(1, torch.float64), normal(2, torch.float64)
    for time in (20, 500, 980):
        output, latents = base.joined(clean, noise, time), base.mixed(clean, noise, time)
        for got, want in zip(base.split(output, latents, time), (clean, noise), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(base.noise_in(latents, clean, 980), noise)


def test_an_unknown_prediction_is_named():
    with pytest.raises(ValueError, match="score"):
        clean_and_noise("score", torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("path", paths())
def test_renoising_undoes_a_levels_share_of_the_picture(path):
    """Of a' x0 + s' n it makes a x0 + s n'': the picture's share is a, the two noises' variances add up to s^2."""
    for time in path.times:
        (a, s), (below_a, below_s) = path.coefficients(time), path.coefficients(path.below(time))
        one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        picture, old = path.renoised(below_a * one, none, time), path.renoised(below_s * one, none, time)
        fresh = path.renoised(none, one, time)
        torch.testing.assert_close(picture[0], a, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(old.square() + fresh.square(), s.square()[None], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", paths())
def test_the_schedulers_are_only_read(path):
    before = {name: repr(value) for name, value in vars(path.scheduler).items()}
    path.on(5).step(normal(1), normal(2), path.on(5).times[0])
    assert {name: repr(value) for name, value in vars(path.scheduler).items()} == before


def test_the_guided_update_is_one_on_both_paths():
    """X_vp = c x_flow with c = a + s: a gradient step on one is, in its coordinates, the step on the other."""
    vp = path_of(toy_scheduler()).on(10)
    x, gradient = normal(1, torch.float64), normal(2, torch.float64)
    for time in vp.times[:-1]:
        (a, s), (below_a, below_s) = vp.coefficients(time), vp.coefficients(vp.below(time))
        c, below_c = a + s, below_a + below_s
        moved = x - vp.guidance_length(time) * gradient  # d/dx_vp at c x_flow, so d/dx_flow is c times as long
        straight = RectifiedFlow("velocity", 1000, flow(), (float(1000 * s / c), float(1000 * below_s / below_c)))
        length = straight.guidance_length(straight.times[0])
        torch.testing.assert_close(moved / below_c, x / below_c - length * c * gradient, rtol=1e-9, atol=1e-9)


class GaussianFlow(nn.Module):
    """The exact velocity for data from N(0, spread^2): its ordinary differential equation has a closed solution."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def variance(self, time: float) -> float:
        s = float(time) / 1000
        return ((1 - s) * self.spread) ** 2 + s**2

    def forward(self, x: Tensor, time: float, **_: object) -> tuple[Tensor]:
        s = float(time) / 1000
        # E[n - x0 | x] of jointly Gaussian n, x0 and x
        return ((s - (1 - s) * self.spread**2) / self.variance(time) * x,)


@pytest.mark.parametrize("level", ["lower", "upper"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_inversion_on_a_flow_converges_to_the_solution(level, shift):
    """X_s / x_0 = sqrt(var_s / var_0); the error of a first-order method falls with the steps."""
    model, prompt = GaussianFlow(0.6), Prompt(torch.zeros(2, 1, 4, dtype=torch.float64))
    clean, errors = normal(1, torch.float64), []
    for steps in (10, 50, 250):
        path = path_of(flow(shift)).on(steps)
        found = invert(denoiser_of(model), path, clean, prompt, path.times, evaluate_at=level)
        assert list(found.levels) == sorted(path.times)
        exact = clean * (model.variance(1000) / model.variance(0)) ** 0.5
        errors.append(float((found.start - exact).norm() / exact.norm()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


def test_sampling_a_flow_gives_the_inverted_picture_back():
    model, prompt = GaussianFlow(0.6), Prompt(torch.zeros(2, 1, 4, dtype=torch.float64))
    clean, errors = normal(1, torch.float64), []
    for steps in (10, 40, 160):
        path = path_of(flow()).on(steps)
        start = invert(denoiser_of(model), path, clean, prompt, path.times).start
        back = sample(denoiser_of(model), path, {"edit": Lane(start, prompt)}, path.times)["edit"].latents
        errors.append(float((back - clean).norm() / clean.norm()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.04


def test_other_schedulers_are_read_as_ddim_or_refused():
    config = toy_scheduler("v_prediction").config
    for cls in (PNDMScheduler, EulerDiscreteScheduler, SASolverScheduler):
        made = path_of(cls.from_config(config))
        assert (made.kind, made.length) == ("v_prediction", 1000)
        for time in (1, 500, 980):
            assert made.coefficients(time) == path_of(toy_scheduler()).coefficients(time)
    with pytest.raises(InputError, match="scheduler: found a object"):
        path_of(object())


@pytest.mark.parametrize("time", [0, 981, 500.5, 1000.0])
def test_times_come_back_from_their_names(time):
    assert time_of(str(time)) == time
    assert type(time_of(str(time))) is type(time)
