"""Ours against diffusers' own pipelines on the embedded model: the same work, the same steps, CPU seconds.

pytest tests/benchmarks/test_peers.py -m benchmark -s -n 0

Rounds alternate on one thread (`OMP_NUM_THREADS=1`); a ratio below 1 says that ours takes less. `FREECTL_ROUNDS` sets
how many are counted.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from freectl import methods
from freectl.files.data import MODEL_DIR, prompts_file
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(0)]

ROUNDS, STEPS = int(os.environ.get("FREECTL_ROUNDS", "3")), 20
PROMPT, SOURCE = "a fluent cat on a blue background", "a fluent fox on an orange background"


@pytest.fixture(scope="module")
def ours() -> FreeControlPipeline:
    pipe = FreeControlPipeline.from_pretrained(str(MODEL_DIR), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.open(prompts_file("images/fox.png")).convert("RGB").resize((64, 64))


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    """Median of the rounds' ratios; the first round is not counted."""
    found = []
    for _ in range(ROUNDS + 1):
        took = []
        for work in (ours, theirs):
            begin = time.process_time()
            work()
            took.append(time.process_time() - begin)
        found.append(took[0] / took[1])
    return statistics.median(found[1:])


def told(capsys: pytest.CaptureFixture[str], what: str, found: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: {found:.3f}")  # noqa: T201


def test_sdedit_against_img2img(ours, image, capsys):
    theirs = StableDiffusionImg2ImgPipeline(**ours.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    method, call = methods.get("sdedit"), {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    settings = method.settings(strength=0.7)
    found = ratio(
        lambda: ours(
            PROMPT, image, method=method, settings=settings, generator=torch.Generator().manual_seed(0), **call
        ),
        lambda: theirs(PROMPT, image, strength=0.7, generator=torch.Generator().manual_seed(0), **call),
    )
    told(capsys, "sdedit / img2img", found)
    assert found <= 1.15


@torch.no_grad()
def test_inversion_against_the_inverse_scheduler(ours, image, capsys):
    engine = Engine(ours)
    scheduler = DDIMInverseScheduler.from_config(ours.scheduler.config)

    def loop() -> None:
        latents, embeds = engine.encode_images([image]), engine.encode_prompt([SOURCE]).cond
        scheduler.set_timesteps(STEPS)
        for timestep in scheduler.timesteps:
            output = ours.unet(latents, timestep, embeds, return_dict=False)[0]
            latents = scheduler.step(output, timestep, latents).prev_sample

    found = ratio(lambda: engine.invert(image, SOURCE, engine.path(STEPS)), loop)
    told(capsys, "inversion / DDIM inverse loop", found)
    assert found <= 1.15


def test_pix2pix_zero_against_diffusers(ours, image, capsys):
    from diffusers import StableDiffusionPix2PixZeroPipeline

    parts = {name: ours.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "feature_extractor")}
    theirs = StableDiffusionPix2PixZeroPipeline(
        **parts,
        scheduler=DDIMScheduler.from_config(ours.scheduler.config),
        inverse_scheduler=DDIMInverseScheduler.from_config(ours.scheduler.config),
        safety_checker=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    words = [theirs.get_embeds([f"a fluent {one} on a blue background"]) for one in ("fox", "cat")]
    method = methods.get("pix2pix-zero")
    settings = method.settings(sentences=1)

    def published() -> None:
        latents = theirs.invert(SOURCE, image=image, num_inference_steps=STEPS, guidance_scale=1.0).latents
        given = {"source_embeds": words[0], "target_embeds": words[1], "latents": latents}
        theirs(SOURCE, num_inference_steps=STEPS, guidance_scale=4.0, **given)

    call = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "source_prompt": SOURCE}
    found = ratio(lambda: ours(PROMPT, image, method=method, settings=settings, **call), published)
    told(capsys, "pix2pix-zero / diffusers'", found)
    assert found <= 1.0


@pytest.mark.parametrize("count", [8])
def test_a_batch_against_single_pictures(ours, image, capsys, count):
    """Whole edits, bases shipped, nothing cached: pictures of a batch over pictures of single calls, a second."""
    pictures = [image.rotate(3 * i, fillcolor="white") for i in range(count)]
    call = {"num_inference_steps": STEPS, "source_prompt": SOURCE}

    def seeds() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(count)]

    def singly() -> None:
        for picture, generator in zip(pictures, seeds(), strict=True):
            ours(PROMPT, picture, generator=generator, **call)

    found = 1 / ratio(lambda: ours([PROMPT] * count, pictures, generator=seeds(), **call), singly)
    told(capsys, f"pictures a second, a batch of {count} / singly", found)
    assert found >= 1.6
