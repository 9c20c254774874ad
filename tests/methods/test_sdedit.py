"""SDEdit against diffusers' img2img pipeline, fed with the same latents and noise."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from torch import Tensor

from freectl.methods.sdedit import SDEdit, SDEditSettings
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 8
SCALE = 4.0


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def pipeline(toy) -> FreeControlPipeline:
    pipe = FreeControlPipeline.from_pipe(toy)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: FreeControlPipeline, strength: float, seeds: tuple[int, ...] = (1,), **options: Any):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    prompts, images = ["a cat"] * len(seeds), [picture(seed) for seed in seeds]
    return pipe(prompts, images, generator=generators, method=SDEdit(), strength=strength, **options)


def encoded(pipe: FreeControlPipeline, *seeds: int) -> Tensor:
    return Engine(pipe).encode_images([picture(seed) for seed in seeds])


def diffusers_latents(toy, clean: Tensor, strength: float, seed: int, **options: Any) -> Tensor:
    reference = StableDiffusionImg2ImgPipeline.from_pipe(toy)
    reference.set_progress_bar_config(disable=True)
    return reference(
        "a cat",
        image=clean,  # diffusers would sample the posterior of a picture; latents it takes as they are
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **options,
    ).images


@pytest.mark.parametrize("eta", [0.0, 0.8])
@pytest.mark.parametrize("strength", [0.13, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", ["toy_pipe", "toy_pipe_v"])
def test_equals_diffusers_img2img(request, name, strength, eta):
    toy = request.getfixturevalue(name)
    pipe = pipeline(toy)
    got = run(pipe, strength, eta=eta).images
    expected = diffusers_latents(toy, encoded(pipe, 1), strength, 1, eta=eta)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_batch_equals_singles(toy_pipe):
    pipe = pipeline(toy_pipe)
    both = run(pipe, 0.5, (1, 2)).images
    for i, seed in enumerate((1, 2)):
        single = run(pipe, 0.5, (seed,)).images
        torch.testing.assert_close(both[i : i + 1], single, rtol=0, atol=1e-4 * float(single.abs().max()))


def test_strength_0_returns_the_encoded_picture(toy_pipe):
    pipe = pipeline(toy_pipe)
    out = run(pipe, 0.0)
    assert torch.equal(out.images, encoded(pipe, 1))
    assert out.cost["row_forwards"] == 0


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_rows_are_two_a_step_that_is_run(toy_pipe, strength):
    cost = run(pipeline(toy_pipe), strength).cost
    assert cost["row_forwards"] == 2 * int(STEPS * strength)
    assert cost["row_backwards"] == 0
    assert SDEdit().row_forwards(STEPS, SDEditSettings(strength=strength)).endswith(f" {cost['row_forwards']}")


def test_less_strength_stays_closer_to_the_input(toy_pipe):
    pipe = pipeline(toy_pipe)
    clean = encoded(pipe, 1)
    distances = [float((run(pipe, strength).images - clean).norm()) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert distances == sorted(distances)


def test_given_latents_are_the_noise(toy_pipe):
    pipe = pipeline(toy_pipe)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = diffusers_latents(toy_pipe, encoded(pipe, 9), 0.5, 1)  # the generator's first draw is that noise
    torch.testing.assert_close(run(pipe, 0.5, (9,), latents=noise).images, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(toy_pipe, strength):
    with pytest.raises(ValueError, match="strength"):
        run(pipeline(toy_pipe), strength)


def test_presets_are_valid():
    strengths = [SDEditSettings(**preset).strength for preset in SDEdit.presets.values()]
    assert strengths == [0.75, 0.5, 0.85]
