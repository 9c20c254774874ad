"""Numbers that are none end a run with their cause, and never reach the cache."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from freectl import methods
from freectl.denoising.schedules import path_of
from freectl.errors import FreectlError
from freectl.files.cache import Cache
from freectl.models.finite import FiniteCall
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 3


def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def own(pipe) -> FreeControlPipeline:
    """A pipeline whose networks may be broken."""
    parts = {name: copy.deepcopy(part) for name, part in pipe.components.items()}
    made = FreeControlPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def entries(folder: Path) -> list[Path]:
    return list(folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("part", "weight", "said"),
    [
        ("unet", "conv_out.weight", r"at timestep 0 of inverting: the network's output.*such as conv_out.weight"),
        ("vae", "decoder.conv_out.weight", r"decoded picture.*VAE weights.*such as decoder.conv_out.weight"),
        ("vae", "encoder.conv_in.weight", r"encoded picture.*VAE weights.*such as encoder.conv_in.weight"),
        ("text_encoder", "final_layer_norm.weight", r"encoded text.*text encoder"),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers(toy_pipe, tmp_path, part, weight, said, value):
    pipe, cache = own(toy_pipe), Cache(tmp_path)
    getattr(pipe, part).get_parameter(weight).data.flatten()[0] = value
    with pytest.raises(FreectlError, match=said):
        pipe("a cat", picture(), num_inference_steps=STEPS, method=methods.get("pnp"), cache=cache)
    assert len(entries(tmp_path)) == (1 if weight.startswith("decoder") else 0)  # a decoder has no part in inversion


@pytest.mark.parametrize("name", ["ctrlx", "ddpm-inversion", "flowedit", "masactrl", "p2p", "pnp", "sdedit"])
def test_a_schedule_without_signal_is_said(toy_pipe, name):
    """Zero terminal SNR (arXiv 2305.08891): from pure noise a prediction of noise says nothing of the picture."""
    pipe = own(toy_pipe)
    config = toy_pipe.scheduler.config
    pipe.scheduler = DDIMScheduler.from_config(config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    method = methods.get(name)
    settings = method.settings(strength=1.0) if name == "sdedit" else method.settings()
    options = {"num_inference_steps": STEPS, "generator": torch.Generator().manual_seed(0), "settings": settings}
    try:
        out = pipe("a cat", picture(), method=method, source_prompt="a dog", output_type="pt", **options)
    except FreectlError as error:
        assert "zero terminal SNR" in str(error)  # noqa: PT017 - some methods never stand at that level
    else:
        assert torch.isfinite(out.images).all()


@pytest.mark.parametrize("clip", [{"clip_sample": True}, {"thresholding": True}])
def test_clipping_does_not_pass_infinity_for_a_picture(toy_pipe, clip):
    pipe = own(toy_pipe)
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipe.scheduler = DDIMScheduler.from_config(toy_pipe.scheduler.config, **zero, **clip)
    method = methods.get("sdedit")
    with pytest.raises(FreectlError, match="zero terminal SNR"):
        pipe("a cat", picture(), num_inference_steps=STEPS, method=method, settings=method.settings(strength=1.0))


def test_calls_that_are_looked_at_together_name_the_first_that_broke(unet):
    """As on an accelerator, where looking at numbers means waiting for them."""

    def call(network, latents, time, embeds, added, attention_kwargs):
        return latents / (time - 3)

    finite = FiniteCall(call, path_of(DDIMScheduler()), every=8)
    finite.doing = "editing"
    for time in (5, 4, 3, 2):
        finite(unet, torch.ones(1), time, torch.ones(1), None, None)
    with pytest.raises(FreectlError, match="at timestep 3 of editing: the network's output"):
        finite.check()
    finite.check()  # what was found is said once
    for time in (3, *range(4, 10)):
        finite(unet, torch.ones(1), time, torch.ones(1), None, None)
    with pytest.raises(FreectlError, match="at timestep 3 of editing"):
        finite(unet, torch.ones(1), 10, torch.ones(1), None, None)


def test_a_narrow_vae_is_named(toy_pipe):
    pipe = own(toy_pipe)
    pipe.vae.to(torch.float16)
    pipe.vae.decoder.conv_out.weight.data.fill_(6e4)
    with pytest.raises(FreectlError, match="a VAE in fp16, which ends at 65504: try bf16 or fp32"):
        pipe("a cat", picture(), num_inference_steps=STEPS, method=methods.get("sdedit"))


def test_latents_that_a_callback_breaks(toy_pipe):
    def broken(_pipe, _index, _timestep, tensors):
        return {"latents": tensors["latents"] * torch.nan}

    options = {"num_inference_steps": STEPS, "method": methods.get("sdedit"), "output_type": "latent"}
    pipe = own(toy_pipe)
    with pytest.raises(FreectlError, match=r"at timestep \d+ of editing: latents: not finite"):
        pipe("a cat", picture(), callback_on_step_end=broken, **options)

    def at_the_end(pipe, index, timestep, tensors):
        return broken(pipe, index, timestep, tensors) if index == pipe.num_timesteps - 1 else {}

    with pytest.raises(FreectlError, match="latents after the last step: not finite"):
        pipe("a cat", picture(), callback_on_step_end=at_the_end, **options)
