"""FlowEdit against the loop written out, its limiting cases, and what it leaves behind."""

from typing import Any

import pytest
import torch
from method_kit import check_unet_restored, picture, wrap
from PIL import Image
from torch import Tensor
from toy import alpha_bar, clean_and_noise

from freectl.methods.flowedit import FlowEdit, FlowEditSettings, tail
from freectl.models.engine import Engine

STEPS = 5
SCALE = 4.0
SOURCE = "a dog"


@pytest.fixture(params=["toy_pipe", "toy_pipe_v", "toy_xl_pipe"])
def pipe(request) -> Any:
    return wrap(request.getfixturevalue(request.param))


def run(pipe: Any, prompt: Any = "a cat", image: Any = None, seed: int = 0, **options: Any):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | options
    options.setdefault("generator", torch.Generator().manual_seed(seed))
    return pipe(prompt, image or picture(), method=FlowEdit(), output_type="latent", **options)


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("toy", ["toy_pipe", "toy_pipe_v"])
@pytest.mark.parametrize(("average", "plain", "negative"), [(1, 0.0, ""), (2, 0.4, ""), (1, 0.0, "blurry")])
def test_equals_the_loop_written_out(request, toy, average, plain, negative):
    """The negative prompt is the target's and the source's alike."""
    pipe = wrap(request.getfixturevalue(toy))
    engine = Engine(pipe)
    path, scheduler = engine.path(STEPS), engine.pipe.scheduler
    grid, generator = path.times, torch.Generator().manual_seed(0)
    kind = scheduler.config.prediction_type
    away, source, target = (engine.encode_prompt([text]).cond for text in (negative, SOURCE, "a cat"))
    clean = engine.encode_images([picture()]).double()

    def root(abar: Tensor) -> Tensor:
        return ((1 - abar) / abar).sqrt()

    def eps(z: Tensor, timestep: int, text: Tensor, scale: float) -> Tensor:
        x = (alpha_bar(scheduler, timestep).sqrt() * z).float()
        outputs = [pipe.unet(x, timestep, encoder_hidden_states=one).sample for one in (away, text)]
        output = outputs[0] + scale * (outputs[1] - outputs[0])
        return clean_and_noise(kind, output, x, alpha_bar(scheduler, timestep))[1].double()

    def noise() -> Tensor:
        return torch.randn(clean.shape, generator=generator).double()

    z, alone = clean, grid[len(grid) - int(plain * STEPS) :]
    for timestep in grid[-3:]:
        here = root(alpha_bar(scheduler, timestep))
        change = root(alpha_bar(scheduler, path.below(timestep))) - here
        if timestep in alone:
            z = z + here * noise() if timestep == alone[0] else z
            z = z + change * eps(z, timestep, target, SCALE)
            continue
        moves = []
        for _ in range(average):
            e = here * noise()
            moves.append(eps(z + e, timestep, target, SCALE) - eps(clean + e, timestep, source, 3.5))
        z = z + change * torch.stack(moves).mean(0)
    if alone:  # sampled latents carry the last level's scale; the picture's own state does not
        z = z * alpha_bar(scheduler, path.below(grid[-1])).sqrt()
    near(run(pipe, average=average, plain=plain, negative_prompt=negative).images.double(), z)


@pytest.mark.parametrize("negative", [None, "blurry"])
def test_equal_prompts_and_guidance_return_the_input(pipe, negative):
    """Whatever the negative prompt."""
    clean = Engine(pipe).encode_images([picture()])
    near(run(pipe, SOURCE, source_guidance=SCALE, negative_prompt=negative).images, clean)


def test_no_steps_return_the_input(toy_pipe):
    pipe = wrap(toy_pipe)
    got = run(pipe, strength=0.0)
    assert torch.equal(got.images, Engine(pipe).encode_images([picture()]))
    assert got.cost["row_forwards"] == 0


def test_all_alone_is_plain_img2img(toy_pipe):
    """n_min = n_max is SDEdit."""
    from freectl.methods.sdedit import SDEdit

    pipe = wrap(toy_pipe)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    other = pipe(
        "a cat", picture(), method=SDEdit(), generator=torch.Generator().manual_seed(0), **options, strength=0.6
    )
    near(run(pipe, strength=0.6, plain=0.6).images, other.images)


@pytest.mark.parametrize("plain", [0.0, 0.4])
def test_what_is_kept_stays(toy_pipe, plain):
    pipe = wrap(toy_pipe)
    kept = Image.new("L", (32, 32))
    kept.paste(255, (0, 0, 16, 32))
    clean = Engine(pipe).encode_images([picture()])
    free, got = (run(pipe, plain=plain, keep=one).images for one in (None, kept))
    near(got[..., :4], clean[..., :4])
    assert not torch.allclose(got[..., 4:], clean[..., 4:], atol=1e-2)
    assert not torch.allclose(free[..., :4], clean[..., :4], atol=1e-2)


def test_given_latents_are_the_first_noise(toy_pipe):
    pipe = wrap(toy_pipe)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"strength": 0.2}
    assert torch.equal(run(pipe, latents=noise, seed=5, **options).images, run(pipe, **options).images)


def test_batch_equals_singles(pipe):
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    both = run(pipe, ["a cat", "a red fox"], [picture(), picture(1)], generator=generators).images
    for i, text in enumerate(("a cat", "a red fox")):
        near(both[i : i + 1], run(pipe, text, picture(i), seed=i).images)


@pytest.mark.parametrize(
    ("options", "rows"),
    [({}, 12), ({"average": 2}, 24), ({"plain": 0.4}, 8), ({"plain": 1.0}, 6), ({"strength": 1.0}, 20)],
)
def test_rows_follow_the_formula(toy_pipe, options, rows):
    cost = run(wrap(toy_pipe), **options).cost
    assert cost["row_forwards"] == rows
    assert cost["row_backwards"] == 0
    assert FlowEdit().row_forwards(STEPS, FlowEditSettings(**options)).startswith(f"synthesis {rows} ")


def test_rows_without_a_source_prompt_or_guidance(toy_pipe):
    pipe = wrap(toy_pipe)
    told = run(pipe, source_prompt="")
    assert told.cost["row_forwards"] == 9
    assert run(pipe, source_prompt="", negative_prompt="blurry").cost["row_forwards"] == 12
    assert "no words" in told.warnings[0]
    assert run(pipe, guidance_scale=1.0).cost["row_forwards"] == 6


def test_the_published_cost_at_50_steps():
    assert FlowEdit().row_forwards(50, FlowEditSettings()).startswith("synthesis 132 ")
    assert len(tail(range(50), 0.66)) == 33


def test_unet_is_as_before_after_a_failing_callback(toy_pipe):
    pipe = wrap(toy_pipe)
    check_unet_restored(pipe, lambda fail: run(pipe, callback_on_step_end=fail), step=1)
