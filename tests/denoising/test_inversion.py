"""DDIM inversion against its equations, diffusers' inverse scheduler and an ODE with a known solution."""

import math

import pytest
import torch
from diffusers import DDIMInverseScheduler
from torch import Tensor, nn
from toy import TEXT_WIDTH, alpha_bar, clean_and_noise, denoiser_of, on_path, previous_timestep, toy_scheduler, toy_unet

from freectl.denoising.inversion import invert
from freectl.denoising.sampler import Lane, Prompt, sample

KINDS = ["epsilon", "v_prediction"]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scheduler_of(kind: str, steps: int):
    scheduler = toy_scheduler(kind)
    scheduler.set_timesteps(steps)
    return scheduler


class GaussianModel(nn.Module):
    """The exact network for data from N(0, spread^2): its probability-flow ODE has a closed solution."""

    def __init__(self, kind: str, spread: float = 1.0) -> None:
        super().__init__()
        self.kind, self.spread = kind, spread
        self.alphas = toy_scheduler().alphas_cumprod.double()

    def variance(self, timestep: int) -> Tensor:
        return self.alphas[timestep] * self.spread**2 + 1 - self.alphas[timestep]

    def forward(self, x: Tensor, timestep, **_kwargs) -> tuple[Tensor]:
        abar = self.alphas[int(timestep)]
        noise = (1 - abar).sqrt() * x / self.variance(int(timestep))
        if self.kind == "epsilon":
            return (noise,)
        clean = (x - (1 - abar).sqrt() * noise) / abar.sqrt()
        return (abar.sqrt() * noise - (1 - abar).sqrt() * clean,)


def alpha_table() -> Tensor:
    """Stable Diffusion's schedule from its definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["lower", "upper"])
@pytest.mark.parametrize("steps", [4, 7])
def test_equals_the_equations_in_float64(kind, steps, level):
    """x_{t+1} = sqrt(abar') x0_hat + sqrt(1 - abar') eps, written out for both kinds of network."""
    unet = toy_unet().double()
    clean, text = normal(2, 4, 8, 8, dtype=torch.float64), normal(2, 7, TEXT_WIDTH, seed=1, dtype=torch.float64)
    scheduler = scheduler_of(kind, steps)
    got = invert(denoiser_of(unet), on_path(scheduler), clean, Prompt(text), scheduler.timesteps, evaluate_at=level)
    abars, x, expected = alpha_table(), clean, {}
    ratio = 1000 // steps
    for k in range(steps):
        t = 1 + k * ratio
        here, there = (abars[0] if k == 0 else abars[t - ratio]), abars[t]
        with torch.no_grad():
            given = t if level == "upper" else max(0, t - ratio)
            out = unet(x, given, encoder_hidden_states=text).sample
        if kind == "epsilon":
            eps = out
            x0 = (x - math.sqrt(1 - here) * eps) / math.sqrt(here)
        else:
            x0 = math.sqrt(here) * x - math.sqrt(1 - here) * out
            eps = math.sqrt(here) * out + math.sqrt(1 - here) * x
        x = math.sqrt(there) * x0 + math.sqrt(1 - there) * eps
        expected[t] = x
    assert got.levels.keys() == expected.keys()
    for t, value in expected.items():
        # the scheduler's own table is fp32
        torch.testing.assert_close(got.levels[t], value, rtol=1e-5, atol=1e-5)
    assert got.clean is clean
    assert torch.equal(got.start, got.levels[max(expected)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [5, 8])
def test_equals_diffusers_inverse_scheduler(unet, kind, steps):
    scheduler = scheduler_of(kind, steps)
    inverse = DDIMInverseScheduler.from_config(scheduler.config)
    inverse.set_timesteps(steps)
    clean, text = normal(1, 4, 8, 8), normal(1, 7, TEXT_WIDTH, seed=1)
    grid = scheduler.timesteps.tolist()
    got = invert(denoiser_of(unet), on_path(scheduler), clean, Prompt(text), grid, evaluate_at="upper")
    x = clean
    for timestep in inverse.timesteps.tolist():
        with torch.no_grad():
            output = unet(x, timestep, encoder_hidden_states=text).sample
        x = inverse.step(output, timestep, x).prev_sample
        torch.testing.assert_close(got.levels[timestep], x, rtol=1e-5, atol=1e-5)
    assert (got.start - clean).abs().max() > 0.1


@pytest.mark.parametrize("steps", [1, 5, 7, 50, 200])
def test_keys_are_the_sampling_grid(steps):
    scheduler = scheduler_of("epsilon", steps)
    reached: list[int] = []
    model = GaussianModel("epsilon")
    prompt = Prompt(normal(1, 7, TEXT_WIDTH))
    got = invert(
        denoiser_of(model), on_path(scheduler), normal(1, 4, 2, 2), prompt, scheduler.timesteps, reached.append
    )
    assert list(got.levels) == reached == sorted(scheduler.timesteps.tolist())


@pytest.mark.parametrize("level", ["lower", "upper"])
@pytest.mark.parametrize("kind", KINDS)
def test_converges_to_the_solution_of_the_ode(kind, level):
    """x_t / x_0 = sqrt(var_t / var_0) for Gaussian data; the error of a first-order method falls with the steps."""
    model = GaussianModel(kind)
    clean = normal(1, 4, 4, 4, dtype=torch.float64)
    prompt = Prompt(normal(1, 7, TEXT_WIDTH, dtype=torch.float64))
    errors = []
    for steps in (10, 50, 250):
        scheduler = scheduler_of(kind, steps)
        got = invert(denoiser_of(model), on_path(scheduler), clean, prompt, scheduler.timesteps, evaluate_at=level)
        top = max(got.levels)
        exact = clean * (model.variance(top) / model.variance(0)).sqrt()
        errors.append(float((got.start - exact).norm() / exact.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.01


class NoiseOfVelocity(nn.Module):
    """A v-prediction network asked for its noise: a random network read as noise itself is no smooth flow."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet, self.alphas = unet, toy_scheduler().alphas_cumprod

    def forward(self, x: Tensor, timestep, **kwargs) -> tuple[Tensor]:
        abar = self.alphas[int(timestep)]
        return (abar.sqrt() * self.unet(x, timestep, **kwargs)[0] + (1 - abar).sqrt() * x,)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_improves_with_steps(unet, kind):
    """Invert, then sample back with the same prompt and no guidance: three times the steps, half of the error."""
    denoiser = denoiser_of(unet if kind == "v_prediction" else NoiseOfVelocity(unet))
    clean, prompt = normal(1, 4, 8, 8), Prompt(normal(1, 7, TEXT_WIDTH, seed=1))
    errors = []
    for steps in (4, 12, 36):
        scheduler = scheduler_of(kind, steps)
        timesteps = scheduler.timesteps.tolist()
        start = invert(denoiser, on_path(scheduler), clean, prompt, timesteps).start
        back = sample(denoiser, on_path(scheduler), {"edit": Lane(start, prompt)}, timesteps)["edit"].latents
        errors.append(float((back - clean).norm() / clean.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_is_that_of_a_network_that_guides_itself(unet, kind):
    class Guiding(nn.Module):
        def forward(self, x: Tensor, timestep, encoder_hidden_states: Tensor, **_kwargs) -> tuple[Tensor]:
            outputs = [unet(x, timestep, encoder_hidden_states=one)[0] for one in (away, encoder_hidden_states)]
            return (outputs[0] + 3 * (outputs[1] - outputs[0]),)

    scheduler = scheduler_of(kind, 4)
    clean, text, away = normal(1, 4, 8, 8), normal(1, 7, TEXT_WIDTH, seed=1), normal(1, 7, TEXT_WIDTH, seed=2)
    grid, path = scheduler.timesteps, on_path(scheduler)
    got = invert(denoiser_of(unet), path, clean, Prompt(text, away), grid, guidance_scale=3.0)
    expected = invert(denoiser_of(Guiding()), path, clean, Prompt(text), grid)
    for time, value in expected.levels.items():
        torch.testing.assert_close(got.levels[time], value, rtol=0, atol=1e-4 * float(value.abs().max()))


def test_batch_equals_singles(unet):
    scheduler = scheduler_of("epsilon", 5)
    clean, text = normal(3, 4, 8, 8), normal(3, 7, TEXT_WIDTH, seed=1)
    joint = invert(denoiser_of(unet), on_path(scheduler), clean, Prompt(text), scheduler.timesteps)
    for i in range(3):
        row = slice(i, i + 1)
        single = invert(denoiser_of(unet), on_path(scheduler), clean[row], Prompt(text[row]), scheduler.timesteps)
        for t, value in single.levels.items():
            torch.testing.assert_close(joint.levels[t][row], value, rtol=0, atol=1e-4)


def test_one_row_a_step_and_no_unconditional_half(unet):
    rows: list[int] = []
    unet.register_forward_pre_hook(lambda _m, args, kwargs: rows.append(len(args[0])), with_kwargs=True)
    scheduler = scheduler_of("epsilon", 5)
    text = normal(1, 7, TEXT_WIDTH, seed=1)
    clean = normal(1, 4, 8, 8)
    both = invert(
        denoiser_of(unet),
        on_path(scheduler),
        clean,
        Prompt(text, normal(1, 7, TEXT_WIDTH, seed=2)),
        scheduler.timesteps,
    )
    assert rows == [1] * 5
    only = invert(denoiser_of(unet), on_path(scheduler), clean, Prompt(text), scheduler.timesteps)
    assert torch.equal(both.start, only.start)
    assert not both.start.requires_grad


@pytest.mark.parametrize("kind", [*KINDS, "sample"])
def test_predictions_recover_clean_and_noise(kind):
    """From x = sqrt(abar) x0 + sqrt(1 - abar) eps and the network's exact answer, x0 and eps come back."""
    abar = torch.tensor(0.37, dtype=torch.float64)
    x0, eps = normal(2, 4, 3, 3, dtype=torch.float64), normal(2, 4, 3, 3, seed=1, dtype=torch.float64)
    a, s = math.sqrt(0.37), math.sqrt(0.63)
    output = {"epsilon": eps, "v_prediction": a * eps - s * x0, "sample": x0}[kind]
    clean, noise = clean_and_noise(kind, output, a * x0 + s * eps, abar)
    torch.testing.assert_close(clean, x0)
    torch.testing.assert_close(noise, eps)


def test_unknown_prediction_type_lists_the_allowed():
    with pytest.raises(ValueError, match="'flow'.*epsilon, v_prediction, sample"):
        clean_and_noise("flow", torch.zeros(1), torch.zeros(1), torch.tensor(0.5))


def test_levels_below_the_grid_are_the_clean_picture():
    scheduler = scheduler_of("epsilon", 50)
    assert previous_timestep(scheduler, 981) == 961
    assert previous_timestep(scheduler, 1) < 0
    assert alpha_bar(scheduler, -19) == scheduler.final_alpha_cumprod.double()
    torch.testing.assert_close(alpha_bar(scheduler, 500), alpha_table()[500], rtol=1e-5, atol=0)
