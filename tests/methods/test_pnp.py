"""Plug-and-Play: where it taps, its limiting cases, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, StableDiffusionPipeline, UNet2DConditionModel
from method_kit import check_unet_restored, picture
from torch import Tensor

from freectl.denoising.injection import Injection, SourceInjector
from freectl.denoising.sampler import Controller, Lane, sample
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.pnp import PnP, PnPSettings
from freectl.models.engine import Engine
from freectl.models.families.unet import pnp_sites, self_attentions
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 5
SCALE = 4.0
STOPS = ("feature_stop", "attention_stop")
TOYS = ["toy_pipe", "toy_pipe_v"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=TOYS)
def pipe(request) -> FreeControlPipeline:
    made = FreeControlPipeline.from_pipe(request.getfixturevalue(request.param))
    made.set_progress_bar_config(disable=True)
    return made


def run(
    pipe: FreeControlPipeline, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any
):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    return pipe(prompt, image or picture(), method=PnP(), cache=cache, **options)


def plain(pipe: FreeControlPipeline, start: Tensor, **options: Any) -> Tensor:
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE} | options
    return reference("a cat", latents=start, output_type="latent", **options).images


def start_of(pipe: FreeControlPipeline, cache: Cache, text: str = "") -> Tensor:
    engine = Engine(pipe, cache=cache)
    return engine.invert(picture(), text, engine.path(STEPS))[0].start


def meta_unet(**config: Any) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


def test_sites_of_stable_diffusion_are_the_published():
    unet = meta_unet(block_out_channels=(32, 64, 96, 96), cross_attention_dim=16)
    feature, attention = pnp_sites(unet, "up_blocks.1")
    assert feature == "up_blocks.1.resnets.1.conv2"
    decoder = [name for name in self_attentions(unet) if name.startswith("up_blocks")]
    assert len(decoder) == 9
    published = [f"up_blocks.{block}.attentions.{i}" for block in (1, 2, 3) for i in range(3)][1:]
    assert attention == tuple(f"{x}.transformer_blocks.0.attn1.to_{p}" for x in published for p in "qk")


def test_sites_of_the_embedded_model():
    folder = Path(__file__).parents[2] / "freectl" / "mini" / "model" / "unet"
    config = json.loads((folder / "config.json").read_text())
    feature, attention = pnp_sites(meta_unet(**config), "up_blocks.1")
    assert feature == "up_blocks.1.resnets.1.conv2"
    layers = [site.partition(".transformer_blocks")[0] for site in attention[::2]]
    assert layers == ["up_blocks.1.attentions.1", "up_blocks.2.attentions.0", "up_blocks.2.attentions.1"]


def test_a_unet_without_such_layers_is_refused(unet):
    with pytest.raises(InputError, match="two self-attentions"):
        pnp_sites(unet, "up_blocks.0")


def test_empty_windows_are_plain_sampling_from_the_inverted_latent(pipe, cache):
    got = run(pipe, cache, feature_stop=0.0, attention_stop=0.0).images
    assert torch.equal(got, plain(pipe, start_of(pipe, cache)))
    for window in ("feature_stop", "attention_stop"):
        other = {"feature_stop": 0.0, "attention_stop": 0.0, window: 0.5}
        assert not torch.equal(run(pipe, cache, **other).images, got)


def test_full_injection_of_its_own_trajectory_is_the_reconstruction(pipe):
    """Where inversion is exact, an equal prompt and full windows give plain sampling."""
    engine = Engine(pipe)
    timesteps = engine.timesteps(STEPS)
    start = engine.noise((32, 32), [torch.Generator().manual_seed(0)])
    prompt = engine.encode_prompt([""])
    own: dict[int, Tensor] = {}

    class Record(Controller):
        def before(self, step, lanes):
            own[step.timestep] = lanes["edit"].latents

    expected = sample(engine.denoiser, engine.path(STEPS), {"edit": Lane(start, prompt)}, timesteps, Record())["edit"]
    feature, attention = pnp_sites(pipe.unet, "up_blocks.1")
    lanes = {
        name: Lane(start, engine.encode_prompt([""], [""] if name == "edit" else None), 5.0)
        for name in ("edit", "source")
    }
    injector = SourceInjector(own, [Injection((feature, *attention))])
    got = sample(engine.denoiser, engine.path(STEPS), lanes, timesteps, injector)["edit"]
    torch.testing.assert_close(got.latents, expected.latents, rtol=0, atol=1e-4 * float(expected.latents.abs().max()))


def test_injection_brings_the_edit_nearer_to_the_source(pipe, cache):
    engine = Engine(pipe, cache=cache)
    clean = engine.encode_images([picture()])
    free = run(pipe, cache, feature_stop=0.0, attention_stop=0.0, prompt="xyzzy").images
    full = run(pipe, cache, feature_stop=1.0, attention_stop=1.0, prompt="xyzzy").images
    assert (full - clean).norm() < (free - clean).norm()


def test_batch_equals_singles(pipe, cache):
    both = run(pipe, cache, ["a cat", "a red dog"], [picture(), picture(1)]).images
    for i, text in enumerate(("a cat", "a red dog")):
        single = run(pipe, cache, text, picture(i)).images
        torch.testing.assert_close(both[i : i + 1], single, rtol=0, atol=1e-4 * float(single.abs().max()))


@pytest.mark.parametrize(
    ("features", "attention", "source"), [(0.8, 0.5, 4), (0.2, 0.5, 3), (1.0, 1.0, 5), (0.0, 0.0, 0)]
)
def test_rows_follow_the_formula(toy_pipe, features, attention, source):
    """Inversion N + three rows a step (published: 3 N), less the source's row where nothing is injected."""
    pipe = FreeControlPipeline.from_pipe(toy_pipe)
    pipe.set_progress_bar_config(disable=True)
    cost = run(pipe, feature_stop=features, attention_stop=attention).cost
    assert cost["row_forwards"] == STEPS + 2 * STEPS + source
    assert cost["row_backwards"] == 0
    words = PnP().row_forwards(STEPS, PnPSettings(feature_stop=features, attention_stop=attention))
    assert words == f"inversion {STEPS} + synthesis {2 * STEPS + source}"
    unguided = run(pipe, feature_stop=features, attention_stop=attention, guidance_scale=1.0).cost
    assert unguided["row_forwards"] == 2 * STEPS + source


def test_inversion_is_cached_and_made_once_a_picture(toy_pipe, tmp_path):
    pipe = FreeControlPipeline.from_pipe(toy_pipe)
    pipe.set_progress_bar_config(disable=True)
    first = run(pipe, Cache(tmp_path))
    again = run(pipe, Cache(tmp_path))
    assert torch.equal(first.images, again.images)
    assert again.cost["cached"]["inversion"]
    assert first.cost["row_forwards"] - again.cost["row_forwards"] == STEPS
    pair = run(pipe, None, ["a cat", "a dog"], feature_stop=0.0, attention_stop=0.0)
    assert pair.cost["row_forwards"] == STEPS + 2 * 2 * STEPS


def test_finer_inversion(toy_pipe, tmp_path):
    """The published 999 steps: their levels at the sampling grid are used."""
    pipe = FreeControlPipeline.from_pipe(toy_pipe)
    pipe.set_progress_bar_config(disable=True)
    cache = Cache(tmp_path)
    fine = run(pipe, cache, inversion_steps=10, feature_stop=0.0, attention_stop=0.0)
    assert fine.cost["row_forwards"] == 10 + 2 * STEPS
    engine = Engine(pipe, cache=cache)
    levels = engine.invert(picture(), "", engine.path(10))[0].levels
    assert torch.equal(fine.images, plain(pipe, levels[max(engine.timesteps(STEPS))]))
    with pytest.raises(InputError, match="inversion_steps"):
        run(pipe, inversion_steps=7)


def test_the_published_inversion_is_diffusers_inverse_scheduler(pipe, cache):
    """Told the upper timestep, with no words, on a grid of its own; scheduled by diffusers."""
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    inverse.set_timesteps(10)
    engine = Engine(pipe)
    x, text = engine.encode_images([picture()]), engine.encode_prompt([""]).cond
    for time in inverse.timesteps:
        with torch.no_grad():
            x = inverse.step(pipe.unet(x, time, encoder_hidden_states=text).sample, time, x).prev_sample
        if int(time) == max(engine.timesteps(STEPS)):
            start = x
    settings = PnPSettings(**PnP.presets["published"] | {"inversion_steps": 10, **dict.fromkeys(STOPS, 0.0)})
    got = run(pipe, cache, settings=settings, source_prompt="a dog").images
    expected = plain(pipe, start)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_source_text(toy_pipe, cache):
    pipe = FreeControlPipeline.from_pipe(toy_pipe)
    pipe.set_progress_bar_config(disable=True)
    given, empty = (run(pipe, cache, source_prompt="a dog", source_text=text).images for text in ("given", "empty"))
    assert torch.equal(empty, run(pipe, cache).images)
    assert not torch.equal(given, empty)


def test_given_latents_are_the_start(pipe, cache):
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    got = run(pipe, cache, latents=noise, feature_stop=0.0, attention_stop=0.0).images
    assert torch.equal(got, plain(pipe, noise))


def test_unet_is_as_before_after_a_failing_callback(pipe, cache):
    check_unet_restored(pipe, lambda fail: run(pipe, cache, callback_on_step_end=fail), step=2)


def test_every_setting_is_read():
    code = Path(__file__).parents[2].joinpath("freectl/methods/pnp.py").read_text()
    for name, field in PnPSettings.model_fields.items():
        assert f"settings.{name}" in code, name
        assert field.description


def test_presets():
    default, published = (PnPSettings(**PnP.presets[name]) for name in ("default", "published"))
    assert (default.feature_stop, default.attention_stop) == (0.8, 0.5)
    assert (published.feature_stop, published.attention_stop) == (0.8, 0.5)
    assert (published.inversion_steps, published.inversion_at) == (999, "upper")
    assert PnP().row_forwards(50, published) == "inversion 999 + synthesis 140"
