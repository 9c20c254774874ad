"""Null-text inversion against a loop written out, and as an inversion of Prompt-to-Prompt."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from method_kit import check_unet_restored, picture, wrap
from torch import Tensor
from toy import alpha_bar, clean_and_noise

from freectl.files.cache import Cache
from freectl.methods.base import Request
from freectl.methods.p2p.method import P2P, P2PSettings
from freectl.methods.p2p.null_text import TOLERANCE, TOLERANCE_END, NullTextSettings, null_text
from freectl.models.engine import Engine

STEPS = 3
SCALE = 4.0
SOURCE = "a dog"
OFF = {"cross_stop": 0.0, "self_stop": 0.0}


@pytest.fixture(params=["toy_pipe_v", "toy_xl_pipe"])
def pipe(request) -> Any:
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(pipe: Any, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | options
    options = {"inversion": "null-text", "null_steps": 2, "output_type": "latent"} | options
    return pipe(prompt, image or picture(), method=P2P(), cache=cache, **options)


def asked(engine: Engine) -> Request:
    prompt = engine.encode_prompt(["a cat"], [""])
    return Request([picture()], prompt, ["a cat"], [SOURCE], (32, 32), STEPS, SCALE)


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("toy", ["toy_pipe", "toy_pipe_v"])
def test_equals_the_loop_written_out(request, toy):
    pipe = wrap(request.getfixturevalue(toy))
    engine = Engine(pipe)
    grid = engine.timesteps(STEPS)
    trajectory, _ = engine.invert(picture(), SOURCE, engine.path(STEPS))
    got, embeddings = null_text(engine, asked(engine), [SOURCE], NullTextSettings(steps=3, rate=0.05))
    cond, empty = engine.encode_prompt([SOURCE]).cond, engine.encode_prompt([""]).cond
    targets = [*(trajectory.levels[t] for t in grid[1:]), trajectory.clean]
    latents, embedding, kind = trajectory.start, empty, engine.pipe.scheduler.config.prediction_type

    def below(timestep: int, null: Tensor) -> Tensor:
        outputs = [pipe.unet(latents, timestep, encoder_hidden_states=text).sample for text in (null, cond)]
        output = outputs[0] + SCALE * (outputs[1] - outputs[0])
        x0, noise = clean_and_noise(kind, output, latents, alpha_bar(engine.pipe.scheduler, timestep))
        under = alpha_bar(engine.pipe.scheduler, engine.path(STEPS).below(timestep))
        return under.sqrt().float() * x0 + (1 - under).sqrt().float() * noise

    for i, timestep in enumerate(grid):
        embedding = embedding.detach().clone().requires_grad_(True)
        adam = torch.optim.Adam([embedding], lr=0.05 * (1 - i / (2 * STEPS)))
        for _ in range(3):
            loss = ((below(timestep, embedding) - targets[i]) ** 2).mean()
            if loss < TOLERANCE + TOLERANCE_END * i / STEPS:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
        near(got.levels[timestep], latents)
        torch.testing.assert_close(embeddings[timestep], embedding.detach(), rtol=0, atol=2e-3)
        latents = below(timestep, embedding).detach()
    pipe.unet.zero_grad(set_to_none=True)


def test_without_steps_it_is_plain_sampling_from_the_inverted_latent(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    engine = Engine(pipe, cache=cache)
    start = engine.invert(picture(), SOURCE, engine.path(STEPS))[0].start
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    expected = reference("a cat", latents=start, **options).images
    assert torch.equal(run(pipe, cache, null_steps=0, **OFF).images, expected)


def test_it_reconstructs_better_than_an_empty_negative(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    engine = Engine(pipe, cache=cache)
    engine.timesteps(STEPS)
    clean = engine.encode_images([picture()])
    errors = [
        float((run(pipe, cache, SOURCE, null_steps=steps, null_rate=0.1, **OFF).images - clean).norm())
        for steps in (0, 10)
    ]
    assert errors[1] < errors[0]


def test_equal_prompts_and_full_windows_are_the_reconstruction(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    near(run(pipe, cache, SOURCE, cross_stop=1.0, self_stop=1.0).images, run(pipe, cache, SOURCE, **OFF).images)


def test_batch_equals_singles(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    both = run(pipe, cache, ["a cat", "a red fox"], [picture(), picture(1)], negative_prompt=["", "blurry"]).images
    for i, (text, negative) in enumerate((("a cat", ""), ("a red fox", "blurry"))):
        near(both[i : i + 1], run(pipe, None, text, picture(i), negative_prompt=negative).images)


def test_rows_follow_the_formula(toy_pipe, tmp_path):
    """N + N (2 to 2 + K) for the fitting, K of them with a backward pass, then two rows and the source's one."""
    pipe, kept = wrap(toy_pipe), Cache(tmp_path)
    settings = P2PSettings(inversion="null-text", null_steps=2)
    cost = run(pipe, kept).cost
    taken = cost["row_backwards"]
    source = 3  # cross_stop 0.8 of 3 steps
    assert 0 < taken <= 2 * STEPS
    assert cost["row_forwards"] == STEPS + 2 * STEPS + taken + 2 * STEPS + source
    words = P2P().row_forwards(STEPS, settings)
    assert words.startswith(f"inversion {STEPS} + null-text {4 * STEPS} (at most, with {2 * STEPS} row backwards;")
    assert words.endswith(f"synthesis {2 * STEPS + source}")
    again = run(pipe, kept).cost
    assert again["row_forwards"] == 2 * STEPS + source
    assert again["row_backwards"] == 0
    assert again["cached"]["inversion"]
    assert P2P().row_forwards(50, P2PSettings(inversion="null-text")).startswith("inversion 50 + null-text 600 (")


def test_without_guidance_nothing_is_fitted(toy_pipe, cache):
    cost = run(wrap(toy_pipe), cache, guidance_scale=1.0, null_steps=5).cost
    assert cost["row_backwards"] == 0


def test_unet_is_as_before_after_a_failing_callback(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    check_unet_restored(pipe, lambda fail: run(pipe, cache, callback_on_step_end=fail), step=1)
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())
