"""The denoising loop against diffusers' own pipeline, and relations between runs of it."""

import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toy import TEXT_WIDTH, denoiser_of, on_path, toy_inputs, toy_scheduler, toy_unet

from freectl.denoising.sampler import Controller, Lane, Prompt, Step, sample
from freectl.denoising.schedules import path_of

STEPS = 6
SCALE = 5.0


def noise(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def grid(scheduler: DDIMScheduler, steps: int = STEPS) -> list[int]:
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


def encode(pipe, *texts: str, negative: str | None = "blurry") -> Prompt:
    with torch.no_grad():
        guided = negative is not None
        cond, uncond = pipe.encode_prompt(list(texts), "cpu", 1, guided, [negative or ""] * len(texts))
    return Prompt(cond, uncond if guided else None)


def random_prompt(batch: int, seed: int = 3, guided: bool = True) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    halves = [torch.randn(batch, 7, TEXT_WIDTH, generator=generator) for _ in range(2)]
    return Prompt(halves[0], halves[1] if guided else None)


def run(unet, lanes: dict[str, Lane], controller: Controller | None = None, **options) -> dict[str, Lane]:
    scheduler = toy_scheduler()
    return sample(denoiser_of(unet), path_of(scheduler).on(STEPS), lanes, grid(scheduler), controller, **options)


class RowCount:
    """Rows of each UNet call."""

    def __init__(self, unet) -> None:
        self.rows: list[int] = []
        self.handle = unet.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, _unet, args, kwargs) -> None:
        self.rows.append(len(args[0] if args else kwargs["sample"]))


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, SCALE])
@pytest.mark.parametrize("name", ["toy_pipe", "toy_pipe_v"])
def test_equals_diffusers(request, name, scale, eta):
    pipe = request.getfixturevalue(name)
    texts = ["a red cat", "a dog"]
    start = noise()
    expected = pipe(
        texts,
        negative_prompt=["blurry"] * 2,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        latents=start.clone(),
        eta=eta,
        generator=seeded(1, 2),
        output_type="latent",
    ).images
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    prompt = encode(pipe, *texts, negative="blurry" if scale > 1 else None)
    lanes = {"edit": Lane(start.clone(), prompt, scale)}
    sample(
        denoiser_of(pipe.unet), path_of(scheduler).on(STEPS), lanes, grid(scheduler), eta=eta, generators=seeded(1, 2)
    )
    assert (lanes["edit"].latents - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected - start).abs().max() > 0.1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_batch_equals_singles(unet, eta):
    start, prompt = noise(3), random_prompt(3)
    together = run(unet, {"edit": Lane(start, prompt, SCALE)}, eta=eta, generators=seeded(5, 6, 7))["edit"].latents
    for i in range(3):
        alone = Prompt(prompt.cond[i : i + 1], prompt.uncond[i : i + 1])
        lane = Lane(start[i : i + 1], alone, SCALE)
        single = run(unet, {"edit": lane}, eta=eta, generators=seeded(5 + i))["edit"].latents
        torch.testing.assert_close(together[i : i + 1], single, rtol=0, atol=1e-4)


def test_stochastic_runs_repeat_and_follow_their_seeds(unet):
    def once(*seeds: int) -> Tensor:
        lane = Lane(noise(), random_prompt(2), SCALE)
        return run(unet, {"edit": lane}, eta=1.0, generators=seeded(*seeds))["edit"].latents

    first, again, other = once(1, 2), once(1, 2), once(1, 3)
    assert torch.equal(first, again)
    torch.testing.assert_close(first[0], other[0], rtol=0, atol=1e-4)
    assert (first[1] - other[1]).abs().max() > 0.1


def test_lanes_of_one_run_equal_lanes_run_alone(unet):
    lanes = {
        "edit": Lane(noise(2, 1), random_prompt(2, 1), SCALE),
        "source": Lane(noise(1, 2), random_prompt(1, 2, guided=False)),
    }
    alone = {name: Lane(lane.latents.clone(), lane.prompt, lane.guidance_scale) for name, lane in lanes.items()}
    count = RowCount(unet)
    joint = run(unet, lanes)
    assert count.rows == [2 * 2 + 1] * STEPS
    assert joint is lanes
    for name, lane in alone.items():
        expected = run(unet, {name: lane})[name].latents
        torch.testing.assert_close(joint[name].latents, expected, rtol=0, atol=1e-4)


def test_rows_follow_their_names(unet):
    lanes = {"a": Lane(noise(1, 1), random_prompt(1, 1)), "b": Lane(noise(2, 2), random_prompt(2, 2))}
    denoiser = denoiser_of(unet)
    with torch.no_grad():
        rows = denoiser.rows(lanes, [("b", "uncond"), ("a", "cond")], 501)
        turned = denoiser.rows(lanes, [("a", "cond"), ("b", "uncond")], 501)
        expected = unet(lanes["b"].latents, 501, encoder_hidden_states=lanes["b"].prompt.uncond).sample
    assert set(rows) == {("b", "uncond"), ("a", "cond")}
    torch.testing.assert_close(rows["b", "uncond"], expected, rtol=0, atol=1e-5)
    for key, value in rows.items():
        torch.testing.assert_close(value, turned[key], rtol=0, atol=1e-5)


def test_rows_carry_the_extra_inputs_of_sdxl():
    unet = toy_unet("sdxl")
    inputs = toy_inputs(unet, batch=2)
    added = inputs["added_cond_kwargs"]
    each = [{name: value[i : i + 1] for name, value in added.items()} for i in range(2)]
    embeds = inputs["encoder_hidden_states"]
    prompt = Prompt(embeds[:1], embeds[1:], {"cond": each[0], "uncond": each[1]})
    lanes = {"edit": Lane(inputs["sample"][:1], prompt)}
    with torch.no_grad():
        rows = denoiser_of(unet).rows(lanes, [("edit", "cond"), ("edit", "uncond")], 501)
        expected = unet(inputs["sample"][[0, 0]], 501, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
    torch.testing.assert_close(torch.cat(list(rows.values())), expected, rtol=0, atol=1e-5)


def test_a_lane_without_its_unconditional_half_says_so(unet):
    lanes = {"edit": Lane(noise(1), random_prompt(1, guided=False))}
    assert lanes["edit"].halves == ("cond",)
    with pytest.raises(ValueError, match="unconditional"):
        denoiser_of(unet).rows(lanes, [("edit", "uncond")], 501)


def test_controller_may_drop_a_lane(unet):
    class Drop(Controller):
        def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
            return ("edit", "sibling") if step.index < 2 else ("edit",)

    start = noise()
    lanes = {name: Lane(start.clone(), random_prompt(2), SCALE) for name in ("edit", "sibling")}
    at_two: list[Tensor] = []

    def watch(step: Step, now: dict[str, Lane]) -> None:
        assert set(now) == {"edit", "sibling"}  # a dropped lane can still be read
        if step.index == 1:
            at_two.append(now["sibling"].latents)

    count = RowCount(unet)
    run(unet, lanes, Drop(), on_step=watch)
    assert count.rows == [8, 8] + [4] * (STEPS - 2)
    assert torch.equal(lanes["sibling"].latents, at_two[0])
    alone = run(unet, {"edit": Lane(start.clone(), random_prompt(2), SCALE)})["edit"].latents
    torch.testing.assert_close(lanes["edit"].latents, alone, rtol=0, atol=1e-4)


def test_on_step_changes_latents(unet):
    """Replacing the latents after step k is the same as starting there."""
    replacement, prompt = noise(1, 9), random_prompt(1)

    def replace(step: Step, lanes: dict[str, Lane]) -> None:
        if step.index == 2:
            lanes["edit"].latents = replacement

    changed = run(unet, {"edit": Lane(noise(1), prompt, SCALE)}, on_step=replace)["edit"].latents
    scheduler = toy_scheduler()
    tail = grid(scheduler)[3:]
    lanes = {"edit": Lane(replacement, prompt, SCALE)}
    assert torch.equal(sample(denoiser_of(unet), on_path(scheduler), lanes, tail)["edit"].latents, changed)


def test_on_step_stops_the_loop(unet):
    seen: list[tuple[int, int, int]] = []

    def stop(step: Step, lanes: dict[str, Lane]) -> bool:
        seen.append((step.index, step.count, step.timestep))
        return step.index == 1

    count = RowCount(unet)
    run(unet, {"edit": Lane(noise(1), random_prompt(1), SCALE)}, on_step=stop)
    expected = grid(toy_scheduler())
    assert seen == [(0, STEPS, expected[0]), (1, STEPS, expected[1])]
    assert count.rows == [2, 2]


def test_before_and_after_hooks_change_latents(unet):
    class Shift(Controller):
        def before(self, step: Step, lanes: dict[str, Lane]) -> None:
            lanes["edit"].latents = lanes["edit"].latents + 0.5

        def after(self, step: Step, lanes: dict[str, Lane]) -> None:
            lanes["edit"].latents = lanes["edit"].latents * 0.9

    start, prompt = noise(1), random_prompt(1, guided=False)
    got = run(unet, {"edit": Lane(start, prompt)}, Shift())["edit"].latents
    scheduler, latents = toy_scheduler(), start
    with torch.no_grad():
        for timestep in grid(scheduler):
            latents = latents + 0.5
            output = unet(latents, timestep, encoder_hidden_states=prompt.cond).sample
            latents = scheduler.step(output, timestep, latents).prev_sample * 0.9
    assert torch.equal(got, latents)


def test_no_gradient_and_no_hooks_are_left(unet):
    latents = run(unet, {"edit": Lane(noise(1), random_prompt(1), SCALE)})["edit"].latents
    assert not latents.requires_grad
    assert not unet._forward_hooks
    assert not unet._forward_pre_hooks


@given(count=st.integers(1, 1000), data=st.data())
def test_windows_at_step_boundaries_are_exact(count, data):
    """A window from a/count to b/count holds exactly the steps a to b - 1, however the fractions round."""
    a = data.draw(st.integers(0, count))
    b = data.draw(st.integers(0, count))
    indices = {a - 1, a, a + 1, b - 1, b, b + 1, 0, count - 1} & set(range(count))
    for index in indices:
        assert Step(index, count, 0).within(a / count, b / count) == (a <= index < b)


@given(count=st.integers(1, 200), start=st.integers(0, 1000), stop=st.integers(0, 1000))
def test_windows_equal_exact_arithmetic(count, start, stop):
    low, high = Fraction(start, 1000), Fraction(stop, 1000)
    inside = [i for i in range(count) if Step(i, count, 0).within(start / 1000, stop / 1000)]
    assert inside == [i for i in range(count) if low * count <= i < high * count]
    assert len(inside) == max(0, math.ceil(high * count) - math.ceil(low * count))


@given(count=st.integers(1, 300), cut=st.floats(0, 1))
def test_a_cut_splits_the_steps_into_two_windows(count, cut):
    for index in range(count):
        step = Step(index, count, 0)
        assert step.within(0, cut) + step.within(cut, 1) == 1


def test_windows_at_the_ends():
    steps = [Step(i, 10, 0) for i in range(10)]
    assert all(step.within(0, 1) for step in steps)
    assert not any(step.within(0, 0) or step.within(1, 1) for step in steps)
    assert [step.within(0.9, 1) for step in steps] == [False] * 9 + [True]
