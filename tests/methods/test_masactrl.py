"""MasaCtrl: which keys and values are shared, its limiting cases, and what it leaves behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from method_kit import check_unet_restored, picture, wrap
from torch import Tensor
from toy import alpha_bar, clean_and_noise

from freectl.denoising.injection import Injection, SourceInjector, projections, row_places
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step, row_keys, sample
from freectl.denoising.taps import tap
from freectl.files.cache import Cache
from freectl.methods.masactrl.method import MasaCtrl, MasaCtrlSettings, shared_layers
from freectl.models.engine import Engine
from freectl.models.families.unet import self_attentions, unet_call
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 5
SCALE = 4.0
SOURCE = "a dog"
TOYS = ["toy_pipe", "toy_pipe_v"]


@pytest.fixture(params=TOYS)
def pipe(request) -> FreeControlPipeline:
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(
    pipe: FreeControlPipeline, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any
):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | options
    return pipe(prompt, image or picture(), method=MasaCtrl(), cache=cache, output_type="latent", **options)


def plain(pipe: FreeControlPipeline, start: Tensor, prompt: str = "a cat", **options: Any) -> Tensor:
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    return reference(prompt, latents=start, **options).images


def test_layers_of_stable_diffusion_are_the_published():
    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=(32, 64, 96, 96), cross_attention_dim=16)
    assert len(self_attentions(unet)) == 16
    layers = shared_layers(self_attentions(unet), MasaCtrlSettings().layer_start)
    expected = [f"up_blocks.{block}.attentions.{i}" for block in (2, 3) for i in range(3)]
    assert [layer.partition(".transformer_blocks")[0] for layer in layers] == expected
    assert shared_layers(self_attentions(unet), 0.0) == self_attentions(unet)
    assert shared_layers(self_attentions(unet), 1.0) == []


@pytest.mark.parametrize("window", [{"start": 1.0}, {"layer_start": 1.0}])
def test_empty_windows_are_plain_sampling_from_the_inverted_latent(pipe, cache, window):
    engine = Engine(pipe, cache=cache)
    start = engine.invert(picture(), SOURCE, engine.path(STEPS))[0].start
    out = run(pipe, cache, **window)
    assert torch.equal(out.images, plain(pipe, start))
    assert out.cost["row_forwards"] == 2 * STEPS
    assert not torch.equal(run(pipe, cache, start=0.4).images, out.images)


@pytest.mark.parametrize("setting", ["start", "layer_start"])
def test_settings_change_the_result(pipe, cache, setting):
    results = [run(pipe, cache, **{"start": 0.0, "layer_start": 0.0, setting: value}).images for value in (0.0, 0.5)]
    assert not torch.equal(*results)


def test_equal_prompt_and_exact_trajectory_are_the_reconstruction(pipe):
    """Where inversion is exact, an equal prompt and full windows give plain guided sampling."""
    engine = Engine(pipe)
    timesteps = engine.timesteps(STEPS)
    start = engine.noise((32, 32), [torch.Generator().manual_seed(0)])
    prompt = engine.encode_prompt([SOURCE], [""])
    own: dict[int, Tensor] = {}

    class Record(Controller):
        def before(self, step, lanes):
            own[step.timestep] = lanes["edit"].latents

    lanes = {"edit": Lane(start, prompt, SCALE)}
    expected = sample(engine.denoiser, engine.path(STEPS), lanes, timesteps, Record())["edit"].latents
    lanes = {name: Lane(start, prompt, SCALE) for name in ("edit", "source")}
    injector = SourceInjector(own, [Injection(projections(shared_layers(self_attentions(pipe.unet), 0.0), "kv"))])
    got = sample(engine.denoiser, engine.path(STEPS), lanes, timesteps, injector)["edit"].latents
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


class Seeing(Denoiser):
    """Keeps what the sites gave, edits included: this tap is inside the injector's."""

    def __init__(self, unet, sites: tuple[str, ...]) -> None:
        super().__init__(unet, unet_call)
        self.sites, self.found = sites, {}

    def rows(self, lanes, keys, timestep):
        with tap(self.network, self.sites) as seen:
            outputs = super().rows(lanes, keys, timestep)
            self.found = seen.pop_all()
        return outputs


def test_each_half_reads_its_own_source_and_queries_stay(pipe):
    """Seen at the first shared layer, whose inputs no copy has changed yet; the source's output is as without."""
    engine = Engine(pipe)
    timestep = engine.timesteps(STEPS)[0]
    latents = [engine.noise((32, 32), [torch.Generator().manual_seed(seed)]) for seed in (0, 1)]
    lanes = {
        "edit": Lane(latents[0], engine.encode_prompt(["a cat"], ["blurry"]), SCALE),
        "source": Lane(latents[1], engine.encode_prompt([SOURCE], [""]), SCALE),
    }
    layers = self_attentions(pipe.unet)[1:]  # behind a cross-attention, so that the halves differ
    places = row_places(lanes, row_keys(lanes))
    q, k, v = projections(layers[:1], "qkv")
    injector = SourceInjector({timestep: latents[1]}, [Injection(projections(layers, "kv"))])
    seeing = Seeing(pipe.unet, (q, k, v))
    with torch.no_grad():
        plain_outputs = Controller().predict(Step(0, 1, timestep), lanes, seeing)
        before = seeing.found
        outputs = injector.predict(Step(0, 1, timestep), lanes, seeing)
    assert torch.equal(seeing.found[q], before[q])
    for site in (k, v):
        for half in ("uncond", "cond"):
            given = before[site][places["source", half]]
            assert torch.equal(seeing.found[site][places["edit", half]], given)
            assert torch.equal(seeing.found[site][places["source", half]], given)
        assert not torch.equal(before[site][places["source", "cond"]], before[site][places["source", "uncond"]])
    assert torch.equal(outputs["source"], plain_outputs["source"])
    assert not torch.equal(outputs["edit"], plain_outputs["edit"])


def test_batch_equals_singles(pipe, cache):
    both = run(pipe, cache, ["a cat", "a red fox"], [picture(), picture(1)]).images
    for i, text in enumerate(("a cat", "a red fox")):
        single = run(pipe, cache, text, picture(i)).images
        torch.testing.assert_close(both[i : i + 1], single, rtol=0, atol=1e-4 * float(single.abs().max()))


@pytest.mark.parametrize(("start", "shared"), [(0.0, 5), (0.08, 4), (0.6, 2), (1.0, 0)])
def test_rows_follow_the_formula(toy_pipe, start, shared):
    """Published: N + 4 N; the source's two rows are left out before step S, one of them without a source prompt."""
    pipe = wrap(toy_pipe)
    cost = run(pipe, start=start).cost
    assert cost["row_forwards"] == STEPS + 2 * STEPS + 2 * shared
    assert cost["row_backwards"] == 0
    without = run(pipe, start=start, source_prompt="").cost["row_forwards"] - STEPS
    words = MasaCtrl().row_forwards(STEPS, MasaCtrlSettings(start=start))
    told = f"({without} where source and negative prompt are equal)"
    assert words == f"inversion {STEPS} + synthesis {2 * STEPS + 2 * shared} {told}"
    unguided = run(pipe, start=start, guidance_scale=1.0).cost
    assert unguided["row_forwards"] == 2 * STEPS + shared


def test_equal_prompts_cancel_under_one_negative_prompt(pipe, cache):
    """In a step from the common start both rows are then the same, and what is shared changes nothing."""
    options = {"num_inference_steps": 1, "negative_prompt": "blurry"}
    engine = Engine(pipe, cache=cache)
    start = engine.invert(picture(), SOURCE, engine.path(1))[0].start
    got = run(pipe, cache, SOURCE, start=0.0, layer_start=0.0, **options).images
    expected = plain(pipe, start, SOURCE, **options)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(got, plain(pipe, start, SOURCE, num_inference_steps=1), atol=1e-3)


def test_published_inversion_is_guided_and_told_the_upper_time(pipe, cache):
    """The loop of the published code written out in float64 from the schedule's numbers."""
    engine, steps = Engine(pipe, cache=cache), 4
    scheduler, grid = pipe.scheduler, Engine(pipe).timesteps(steps)
    kind, x = scheduler.config.prediction_type, engine.encode_images([picture()]).double()
    texts = [engine.encode_prompt([text]).cond for text in ("", SOURCE)]
    for time in reversed(grid):
        with torch.no_grad():
            empty, told = (pipe.unet(x.float(), time, encoder_hidden_states=text).sample.double() for text in texts)
        here, there = alpha_bar(scheduler, time - 1000 // steps), alpha_bar(scheduler, time)
        x0, eps = clean_and_noise(kind, empty + 7.5 * (told - empty), x, here)
        x = there.sqrt() * x0 + (1 - there).sqrt() * eps
    settings = MasaCtrlSettings(**MasaCtrl.presets["published"], start=1.0)
    out = run(pipe, cache, settings=settings, num_inference_steps=steps)
    expected = plain(pipe, x.float(), num_inference_steps=steps)
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    assert run(pipe, settings=settings, num_inference_steps=steps).cost["row_forwards"] == 4 * steps
    unguided = run(pipe, settings=settings, num_inference_steps=steps, source_prompt="").cost
    assert unguided["row_forwards"] == 3 * steps
    assert MasaCtrl().row_forwards(steps, settings).startswith(f"inversion {2 * steps} (half without")


def test_one_source_row_serves_both_halves_of_an_empty_source_prompt(toy_pipe):
    pipe = wrap(toy_pipe)
    engine = Engine(pipe)
    trajectory, _ = engine.invert(picture(), "", engine.path(STEPS))
    injection = Injection(projections(shared_layers(self_attentions(pipe.unet), 0.625), "kv"), start=0.08)
    lanes = {
        "edit": Lane(trajectory.start, engine.encode_prompt(["a cat"], [""]), SCALE),
        "source": Lane(trajectory.start, engine.encode_prompt([""], [""]), SCALE),
    }
    injector = SourceInjector(trajectory.levels, [injection])
    timesteps = engine.timesteps(STEPS)
    expected = sample(engine.denoiser, engine.path(STEPS), lanes, timesteps, injector)["edit"].latents
    got = run(pipe, source_prompt="").images
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_given_latents_are_the_start(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    assert torch.equal(run(pipe, cache, latents=noise, start=1.0).images, plain(pipe, noise))


def test_unet_is_as_before_after_a_failing_callback(pipe, cache):
    check_unet_restored(pipe, lambda fail: run(pipe, cache, callback_on_step_end=fail), step=2)


def test_every_setting_is_read():
    code = Path(__file__).parents[2].joinpath("freectl/methods/masactrl/method.py").read_text()
    for name, field in MasaCtrlSettings.model_fields.items():
        assert f"settings.{name}" in code, name
        assert field.description


def test_the_published_cost_at_50_steps():
    assert MasaCtrl().row_forwards(50, MasaCtrlSettings(start=0.0)).startswith("inversion 50 + synthesis 200 ")
    assert MasaCtrl().row_forwards(50, MasaCtrlSettings()).startswith("inversion 50 + synthesis 192 ")
