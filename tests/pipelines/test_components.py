"""Components are read at the call: replaced schedulers and VAEs, compiled networks, folders of mixed dtypes."""

import copy
import threading

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image

from freectl import methods
from freectl.files.cache import Cache
from freectl.pipelines.sd import FreeControlPipeline

FEW = {"seeds": 2, "seed_steps": 4, "components": 3, "concept": "cat", "num_inference_steps": 4}


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def built(pipe, **replaced) -> FreeControlPipeline:
    made = FreeControlPipeline(**{**pipe.components, **replaced}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def pipe(toy_pipe) -> FreeControlPipeline:
    return built(toy_pipe)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("given", [True, False])
def test_a_scheduler_given_later_is_ddim_on_its_schedule(toy_pipe, pipe, kind, given):
    """The same as one given at construction, and as DDIM with the same table and grid."""
    other = kind.from_config(toy_pipe.scheduler.config)
    expected = built(toy_pipe, scheduler=DDIMScheduler.from_config(toy_pipe.scheduler.config))
    if given:
        pipe = built(toy_pipe, scheduler=other)
    else:
        pipe.scheduler = other
    got = [one("a cat", picture(), output_type="latent", **FEW).images for one in (pipe, expected)]
    assert torch.equal(*got)


def test_a_distilled_vae(toy_pipe, pipe):
    torch.manual_seed(0)
    blocks = {f"{side}_block_out_channels": (8, 8, 8) for side in ("encoder", "decoder")}
    counts = {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}
    pipe.vae = AutoencoderTiny(**blocks, **counts).eval()
    method = methods.get("sdedit")
    out = pipe("a cat", picture(), method=method, output_type="pt", generator=torch.Generator().manual_seed(0))
    latents = pipe("a cat", picture(), method=method, output_type="latent", generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipe.vae.decode(latents.images / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    torch.testing.assert_close(out.images, expected.clamp(0, 1), rtol=0, atol=1e-6)
    assert not torch.equal(out.images, built(toy_pipe)("a cat", picture(), method=method, output_type="pt").images)


@pytest.mark.parametrize("way", ["wrapped", "in place", "blocks"])
@pytest.mark.parametrize("name", ["freecontrol", "pnp"])
def test_a_compiled_network_gives_the_same_picture(toy_pipe, pipe, tmp_path, way, name):
    options = FEW if name == "freecontrol" else {"num_inference_steps": 4}
    options = options | {"method": methods.get(name), "output_type": "latent", "cache": Cache(tmp_path)}
    expected = pipe("a cat", picture(), **options)
    pipe.unet = unet = copy.deepcopy(toy_pipe.unet)
    if way == "wrapped":
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    else:
        for module in [unet] if way == "in place" else unet.up_blocks:
            module.compile(backend="eager")
    out = pipe("a cat", picture(), **options)
    assert torch.equal(out.images, expected.images)
    assert out.cost["cached"]["inversion"]  # the weights are the same, and so is what depends on them
    compiled = [module for module in unet.modules() if module._compiled_call_impl is not None]
    assert len(compiled) == {"wrapped": 0, "in place": 1, "blocks": 3}[way]  # and are compiled again afterwards


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_part_of_another_dtype(toy_pipe, pipe, part):
    """One of the networks in half precision, as diffusers and transformers load fp16 folders where none is asked."""
    narrow = built(toy_pipe, **{part: copy.deepcopy(toy_pipe.components[part]).to(torch.bfloat16)})
    images = [
        one("a cat", picture(), method=methods.get("pnp"), num_inference_steps=4, output_type="pt").images
        for one in (narrow, pipe)
    ]
    assert (images[0].float() - images[1]).abs().mean() < 0.05
    assert getattr(narrow, part).dtype == torch.bfloat16


def test_threads_take_turns(toy_pipe, pipe):
    """Two pipelines on one network, two calls on each, all at once: what each gives alone."""
    names = ["freecontrol", "pnp", "masactrl", "ctrlx"]
    pipes = [pipe, built(toy_pipe)]

    def call(index: int) -> torch.Tensor:
        options = FEW if index == 0 else {"num_inference_steps": 4}
        options = options | {"method": methods.get(names[index]), "generator": torch.Generator().manual_seed(index)}
        return pipes[index % 2]("a cat", picture(index), source_prompt="a dog", output_type="latent", **options).images

    alone = [call(index) for index in range(4)]
    together: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        torch.set_num_threads(1)
        together[index] = call(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[index], alone[index]) for index in range(4))


def test_a_callback_may_run_the_pipeline_itself(pipe):
    options = {"method": methods.get("pnp"), "num_inference_steps": 2, "output_type": "latent"}
    expected, inner = pipe("a cat", picture(), **options).images, []

    def again(_pipe, index, _timestep, _tensors):
        if index == 0:
            inner.append(pipe("a cat", picture(), **options).images)
        return {}

    pipe("a dog", picture(1), callback_on_step_end=again, **options)
    assert torch.equal(inner[0], expected)
