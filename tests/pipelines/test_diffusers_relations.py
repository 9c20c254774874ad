"""What diffusers' common tests ask of each of its pipelines, as relations of ours, and what cannot be.

Held elsewhere: saving, loading, classes, output types, batches, generators, embeddings, latents, callbacks, offload
(`test_pipeline.py`, `test_diffusers_citizen.py`), pictures of every kind and the signature (`test_arguments.py`),
replaced parts (`test_components.py`), the text encoders' LoRA (`test_text_lora.py`).
"""

import copy
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers
from peft import LoraConfig
from PIL import Image

from freectl import methods
from freectl.denoising.taps import TapError
from freectl.errors import InputError
from freectl.pipelines.sd import FreeControlPipeline
from freectl.pipelines.sdxl import FreeControlXLPipeline

FOREIGN = {"DPMSolverSDEScheduler", "EDMEulerScheduler"}
"""One needs another package; one has no noise schedule of DDPM's kind, on which all methods invert."""


@pytest.fixture(params=["sd", "xl"])
def pipe(request, toy_pipe, toy_xl_pipe):
    """With networks of its own."""
    base, kind = (toy_pipe, FreeControlPipeline) if request.param == "sd" else (toy_xl_pipe, FreeControlXLPipeline)
    made = kind(**copy.deepcopy(base).components)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def own(toy_pipe):
    """Of Stable Diffusion 1, with networks of its own."""
    made = FreeControlPipeline(**copy.deepcopy(toy_pipe).components)
    made.set_progress_bar_config(disable=True)
    return made


def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def run(pipe: Any, prompt: Any = "a cat", method: str = "sdedit", **options: Any) -> torch.Tensor:
    shared = {"num_inference_steps": 2, "output_type": "pt", "generator": torch.Generator().manual_seed(0)}
    return pipe(prompt, picture(), **shared | {"method": methods.get(method)} | options).images


def near(one: torch.Tensor, other: torch.Tensor, most: float = 1e-4) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=most)


def test_a_batch_of_unequal_and_overlong_texts_is_its_singles(pipe):
    texts = ["a cat", "a", "very long " * 30]
    whole = run(pipe, texts, generator=[torch.Generator().manual_seed(i) for i in range(3)])
    for index, text in enumerate(texts):
        near(whole[index], run(pipe, text, generator=torch.Generator().manual_seed(index))[0])


def test_sliced_attention_gives_the_same(own):
    names = ("pnp", "masactrl", "p2p")
    plain = [run(own, method=name, source_prompt="a dog") for name in names]
    own.enable_attention_slicing(1)
    for name, expected in zip(names, plain, strict=True):
        near(run(own, method=name, source_prompt="a dog"), expected)


def test_switches_of_the_vae_and_of_freeu_come_and_go(pipe):
    plain = run(pipe, ["a cat", "a dog"], generator=None, eta=0.0, latents=torch.ones(2, 4, 8, 8))
    pipe.vae.enable_slicing()
    near(run(pipe, ["a cat", "a dog"], generator=None, latents=torch.ones(2, 4, 8, 8)), plain)
    pipe.vae.enable_tiling()
    assert torch.isfinite(run(pipe)).all()
    pipe.vae.disable_tiling()
    before = run(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert (run(pipe) - before).abs().max() > 1e-5
    pipe.disable_freeu()
    assert torch.equal(run(pipe), before)


def test_fused_projections_are_used_or_refused_by_name(pipe):
    """Methods that read queries or keys cannot read them there."""
    plain = run(pipe)
    pipe.fuse_qkv_projections()
    near(run(pipe), plain)
    with pytest.raises(TapError, match="never fires while projections are fused"):
        run(pipe, method="pnp")
    pipe.unfuse_qkv_projections()
    near(run(pipe), plain)


def test_every_scheduler_of_stable_diffusion_runs(own):
    config = own.scheduler.config
    for one in KarrasDiffusionSchedulers:
        if one.name not in FOREIGN:
            own.scheduler = getattr(diffusers, one.name).from_config(config)
            assert run(own).shape == (1, 3, 32, 32), one.name
    own.scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(InputError, match="^scheduler: found a EDMEulerScheduler"):
        run(own)


def test_variants_are_saved_and_loaded(own, tmp_path):
    own.save_pretrained(tmp_path, variant="fp16")
    loaded = type(own).from_pretrained(tmp_path, variant="fp16", dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    near(run(loaded), run(own), 1e-6)
    with pytest.raises((ValueError, OSError), match="variant"):
        type(own).from_pretrained(tmp_path, variant="other")


def test_dtypes_part_by_part_and_storage_in_eight_bits(own):
    own.to(torch.bfloat16)
    assert torch.isfinite(run(own).float()).all()
    own.to(torch.float32)
    own.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.isfinite(run(own)).all()


def test_without_text_encoders_embeddings_do(toy_xl_pipe, tmp_path):
    given = toy_xl_pipe.encode_prompt("a cat", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = dict(zip(names, given, strict=True))
    pipe = FreeControlXLPipeline(**toy_xl_pipe.components)
    pipe.set_progress_bar_config(disable=True)
    whole = run(pipe, None, **embeds)
    for name in pipe._optional_components:
        setattr(pipe, name, None)
    assert torch.equal(run(pipe, None, **embeds), whole)
    pipe.save_pretrained(tmp_path)
    loaded = FreeControlXLPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    near(run(loaded, None, **embeds), whole, 1e-6)
    for method, text in (("sdedit", {}), ("pnp", embeds)):
        with pytest.raises(InputError, match="prompt: found text for a model without text encoders"):
            run(pipe, None if text else "a cat", method, **text)


def test_a_lora_of_the_network_is_scaled_fused_switched_and_removed(own):
    plain = run(own)
    own.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v", "to_out.0"]), "own")
    whole = run(own)
    assert (whole - plain).abs().max() > 1e-4
    half = run(own, cross_attention_kwargs={"scale": 0.5})
    own.set_adapters("own", 0.5)
    near(run(own), half)
    own.set_adapters("own", 1.0)
    near(run(own, cross_attention_kwargs={"scale": 0.0}), plain)
    for change, expected in (
        (own.fuse_lora, whole),
        (own.unfuse_lora, whole),
        (own.disable_lora, plain),
        (own.enable_lora, whole),
        (own.unload_lora_weights, plain),
    ):
        change()
        near(run(own), expected, 1e-3)
