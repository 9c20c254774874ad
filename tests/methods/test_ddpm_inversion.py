"""Edit-friendly DDPM inversion: exact where it must be, and what its settings do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from method_kit import picture, wrap
from torch import Tensor
from toy import toy_inputs

from freectl.denoising.sampler import Lane, sample
from freectl.denoising.schedules import path_of
from freectl.files.cache import Cache
from freectl.methods.ddpm_inversion import (
    DDPMInversion,
    DDPMInversionSettings,
    GivenNoise,
    kept_timesteps,
)
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 5
SOURCE = "a dog"
SCALE = 3.5
TOYS = ["toy_pipe", "toy_pipe_v"]


@pytest.fixture(params=TOYS)
def pipe(request) -> FreeControlPipeline:
    return wrap(request.getfixturevalue(request.param))


def run(
    pipe: FreeControlPipeline, prompt: Any = "a cat", image: Any = None, seeds: tuple[int, ...] = (1,), **options: Any
):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | options
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    image = image or picture()
    return pipe(prompt, image, method=DDPMInversion(), generator=generators, output_type="latent", **options)


def encoded(pipe: FreeControlPipeline, seed: int = 0) -> Tensor:
    return Engine(pipe).encode_images([picture(seed)])


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("skip", [0.0, 0.4, 0.8])
def test_equal_prompt_and_guidance_reconstruct_exactly(pipe, skip):
    near(run(pipe, SOURCE, skip=skip).images, encoded(pipe))


def test_equal_prompt_without_guidance_reconstructs_exactly(pipe):
    near(run(pipe, SOURCE, guidance_scale=1.0, source_guidance=1.0).images, encoded(pipe))


@pytest.mark.parametrize("change", [{"prompt": "a cat"}, {"guidance_scale": 5.0}, {"source_guidance": 2.0}])
def test_another_prompt_or_guidance_edits(pipe, change):
    got = run(pipe, **({"prompt": SOURCE} | change)).images
    assert (got - encoded(pipe)).abs().max() > 1e-2


def test_equals_the_equations_in_float64(pipe):
    """Maps and edit by hand, the same draws: the plain reading of the paper, level by level."""
    engine = Engine(pipe)
    grid = kept_timesteps(engine.timesteps(STEPS), 0.4)
    clean, generator = encoded(pipe), torch.Generator().manual_seed(1)
    draws = {t: engine.noise((32, 32), [generator]) for t in engine.timesteps(STEPS)}
    levels = {t: engine.schedule.scheduler.add_noise(clean, draws[t], torch.tensor([t])).double() for t in grid}
    source, target = (engine.encode_prompt([text], [""]) for text in (SOURCE, "a cat"))

    def mean(latents: Tensor, prompt, timestep: int) -> Tensor:
        lane = {"edit": Lane(latents.float(), prompt, SCALE)}
        rows = {h: engine.denoiser.rows(lane, [("edit", h)], timestep)["edit", h] for h in ("uncond", "cond")}
        output = lane["edit"].combine(rows).double()
        abar = engine.schedule.scheduler.alphas_cumprod.double()
        below = timestep - 1000 // STEPS
        a, b = abar[timestep], abar[below] if below >= 0 else engine.schedule.scheduler.final_alpha_cumprod.double()
        noise = output
        if engine.schedule.scheduler.config.prediction_type == "v_prediction":
            noise = a.sqrt() * output + (1 - a).sqrt() * latents
        x0 = (latents - (1 - a).sqrt() * noise) / a.sqrt()
        variance = (1 - b) / (1 - a) * (1 - a / b)
        return b.sqrt() * x0 + (1 - b - variance).sqrt() * noise

    edit = levels[grid[0]]
    with torch.no_grad():
        for timestep, below in zip(grid, [*grid[1:], None], strict=True):
            reached = clean.double() if below is None else levels[below]
            edit = mean(edit, target, timestep) + reached - mean(levels[timestep], source, timestep)
    got = run(pipe, skip=0.4).images
    torch.testing.assert_close(got.double(), edit, rtol=0, atol=1e-3 * float(edit.abs().max()))


def test_last_noise_zero_ends_in_the_mean(pipe):
    """As published: the result is the model's own mean of the last level, near the input but not it."""
    got, clean = run(pipe, SOURCE, last_noise="zero").images, encoded(pipe)
    assert not torch.allclose(got, clean, atol=1e-3)
    engine = Engine(pipe)
    grid = engine.timesteps(STEPS)
    lane = Lane(torch.zeros_like(clean), engine.encode_prompt([SOURCE], [""]), SCALE)
    generator = torch.Generator().manual_seed(1)
    draws = [engine.noise((32, 32), [generator]) for _ in grid]
    lane.latents = engine.schedule.scheduler.add_noise(clean, draws[-1], torch.tensor(grid[-1:]))

    still = GivenNoise({grid[-1]: torch.zeros_like(clean)})
    near(got, sample(engine.denoiser, engine.path(STEPS), {"edit": lane}, grid[-1:], still, eta=1.0)["edit"].latents)


def test_skip_1_returns_the_encoded_picture(pipe):
    out = run(pipe, skip=1.0)
    assert torch.equal(out.images, encoded(pipe))
    assert out.cost["row_forwards"] == 0


def test_more_skip_stays_closer_to_the_input(pipe):
    clean = encoded(pipe)
    distances = [float((run(pipe, skip=skip).images - clean).norm()) for skip in (1.0, 0.8, 0.4)]
    assert distances == sorted(distances)


def test_batch_equals_singles(pipe):
    both = run(pipe, ["a cat", "a red fox"], [picture(), picture(1)], (1, 2)).images
    for i, text in enumerate(("a cat", "a red fox")):
        near(both[i : i + 1], run(pipe, text, picture(i), (1 + i,)).images)


def test_edits_repeat_and_follow_their_seeds(pipe):
    assert torch.equal(run(pipe).images, run(pipe).images)
    assert not torch.equal(run(pipe).images, run(pipe, seeds=(2,)).images)


@pytest.mark.parametrize("skip", [0.0, 0.36, 0.5])
def test_rows_follow_the_formula(toy_pipe, skip):
    """Published: 2 N + 2 (N - skipped); here skipped steps are not inverted. Without a source prompt one row a step."""
    pipe, kept = wrap(toy_pipe), len(kept_timesteps(range(STEPS), skip))
    cost = run(pipe, skip=skip).cost
    assert cost["row_forwards"] == 4 * kept
    assert cost["row_backwards"] == 0
    words = DDPMInversion().row_forwards(STEPS, DDPMInversionSettings(skip=skip))
    assert words.startswith(f"inversion {2 * kept} ")
    assert words.endswith(f" synthesis {2 * kept}")
    assert run(pipe, skip=skip, source_prompt="").cost["row_forwards"] == 3 * kept


def test_kept_steps_of_the_published_setting():
    assert len(kept_timesteps(range(100), DDPMInversionSettings().skip)) == 64


def test_guidance_of_an_empty_source_prompt_changes_nothing(toy_pipe):
    """Which is why its unconditional row is left out."""
    pipe = wrap(toy_pipe)
    results = [run(pipe, source_prompt="", source_guidance=scale).images for scale in (1.0, 3.5)]
    assert torch.equal(*results)


def test_maps_are_cached(toy_pipe, tmp_path):
    pipe = wrap(toy_pipe)
    first, again = (run(pipe, cache=Cache(tmp_path)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert (first.cost["cached"]["inversion"], again.cost["cached"]["inversion"]) == (False, True)
    assert first.cost["row_forwards"] == 2 * again.cost["row_forwards"]
    for change in ({"seeds": (2,)}, {"source_guidance": 2.0}, {"source_prompt": "x"}, {"last_noise": "zero"}):
        assert not run(pipe, cache=Cache(tmp_path), **change).cost["cached"]["inversion"]


def test_given_latents_are_the_first_noise(toy_pipe):
    pipe = wrap(toy_pipe)
    drawn = Engine(pipe).noise((32, 32), [torch.Generator().manual_seed(1)])
    assert torch.equal(run(pipe, skip=0.0, latents=drawn).images, run(pipe, skip=0.0).images)
    assert not torch.equal(run(pipe, skip=0.0, latents=drawn * 0.5).images, run(pipe, skip=0.0).images)


@pytest.mark.parametrize("name", TOYS)
def test_sigma_is_the_schedulers(request, name):
    scheduler = request.getfixturevalue(name).scheduler
    scheduler.set_timesteps(STEPS)
    for timestep in scheduler.timesteps.tolist():
        variance = float(scheduler._get_variance(timestep, timestep - 1000 // STEPS))
        assert float(path_of(scheduler).on(STEPS).deviation(timestep)) == pytest.approx(variance**0.5, rel=1e-4)


def test_unet_is_as_before_after_a_failing_callback(pipe):
    unet = pipe.unet
    inputs = toy_inputs(unet)

    def fail(*_):
        raise RuntimeError("from the callback")

    with torch.no_grad():
        before = unet(**inputs).sample
    with pytest.raises(RuntimeError, match="from the callback"):
        run(pipe, callback_on_step_end=fail)
    with torch.no_grad():
        assert torch.equal(unet(**inputs).sample, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_every_setting_is_read():
    code = Path(__file__).parents[2].joinpath("freectl/methods/ddpm_inversion.py").read_text()
    for name, field in DDPMInversionSettings.model_fields.items():
        assert f"settings.{name}" in code, name
        assert field.description


def test_presets():
    default, published = (DDPMInversionSettings(**DDPMInversion.presets[name]) for name in ("default", "published"))
    assert (published.skip, published.source_guidance, published.last_noise) == (0.36, 3.5, "zero")
    assert default == published.model_copy(update={"last_noise": "kept"})
