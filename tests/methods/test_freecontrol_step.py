"""FreeControl's relative step: its length on any path and grid, its gradient, and that small changes stay small."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from test_freecontrol import SCALE, STEPS, World, normal
from torch import Tensor
from toy import on_path

from freectl.denoising.sampler import Denoiser, Lane, Step
from freectl.denoising.schedules import path_of
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.files.data import prompts_file
from freectl.methods.freecontrol.guide import FULL, FreeControlGuide, Target, relative_length, relative_step
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.mini import MODEL_DIR
from freectl.models.engine import Engine
from freectl.models.families import MINI, SD, SDXL
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import Reference


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def test_its_length_is_the_same_whatever_the_energys_scale():
    gradient, energy = normal(2, 4, 3, 5, seed=0, dtype=torch.float64), torch.tensor([40.0, 90.0])
    step = relative_step(gradient, energy, 0.25)
    torch.testing.assert_close(lengths(step), torch.full((2,), 0.25).double())
    torch.testing.assert_close(step / lengths(step)[0], gradient / lengths(gradient).view(2, 1, 1, 1))
    torch.testing.assert_close(relative_step(1e6 * gradient, 1e6 * energy, 0.25), step)
    torch.testing.assert_close(relative_step(gradient[1:], energy[1:], 0.25), step[1:])


def test_it_never_passes_the_minimum_of_a_quadratic():
    x, least = normal(3, 4, 2, 2, seed=1, dtype=torch.float64), normal(1, 4, 2, 2, seed=2, dtype=torch.float64)
    x[2] = least[0]
    energy, gradient = 7 * (x - least).square().flatten(1).sum(1), 14 * (x - least)
    torch.testing.assert_close(x - relative_step(gradient, energy, 100.0), least.expand(3, -1, -1, -1))


def paths() -> list:
    vp = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False)
    return [path_of(vp), *(path_of(FlowMatchEulerDiscreteScheduler(shift=shift)) for shift in (1.0, 3.0))]


@pytest.mark.parametrize("path", paths(), ids=["vp", "flow", "shifted"])
def test_a_strength_means_the_same_at_any_steps_and_on_any_path(path):
    """At unit variance the lengths add up to the integral of sin^2 over the angle passed, (p - sin p cos p) / 2.

    That is a number of the window's ends alone.
    """
    for steps in (50, 200):
        grid = path.on(steps)
        passed = [t for t in grid.times if grid.noise_level(t) >= 0.54]
        variance = [math.hypot(*map(float, grid.coefficients(grid.below(t)))) for t in passed]
        total = sum(relative_length(grid, t) / v for t, v in zip(passed, variance, strict=True))
        ends = [math.atan2(*map(float, grid.coefficients(t)[::-1])) for t in (passed[0], grid.below(passed[-1]))]
        assert total == pytest.approx(np.subtract(*[(p - math.sin(p) * math.cos(p)) / 2 for p in ends]), rel=1e-3)
        assert total == pytest.approx(0.6, abs=0.1)


def test_the_energy_over_all_kinds_of_features_has_the_gradient_of_finite_differences():
    """In float64, on the block's keys, queries and residual outputs; the update is along it and as long as said."""
    world = World()
    world.sites = SD.structure_sites(world.unet, "all", "block")
    time, step = world.timesteps[3], Step(3, STEPS, world.timesteps[3])
    entries, wanted = {}, {}
    for i, site in enumerate(world.sites):
        width = world.unet.get_submodule(site).weight.shape[0]
        directions = torch.linalg.qr(normal(width, 5, seed=i, dtype=torch.float64))[0].T
        entries[time, site] = Basis(normal(width, seed=9 + i), directions, torch.ones(5), torch.tensor(3.0 + i))
        wanted[time, site] = normal(2, 16, 5, seed=20 + i, dtype=torch.float64)
    settings = FreeControlSettings(structure_strength=0.5, appearance_weight=0.0, components=5)
    guide = FreeControlGuide(
        on_path(world.scheduler), settings, [Target(SemanticBases(entries), Reference(wanted))], world.sites
    )
    lane, denoiser = world.lanes()["edit"], Denoiser(world.unet, SD.call, read=SD.read)
    _, change = guide._edit_row(step, lane, denoiser)

    def energy(x: Tensor) -> Tensor:
        with torch.no_grad(), tap(world.unet, world.sites) as seen:
            denoiser.rows({"edit": Lane(x, world.prompt, SCALE)}, [("edit", "cond")], time)
            return guide._energy(step, denoiser.features(seen.pop_all(), x))

    slopes = []
    for place in ((0, 0, 0), (2, 5, 7), (3, 7, 1)):
        nudge = torch.zeros_like(lane.latents)
        nudge[:, *place] = 1e-5
        slopes.append((energy(lane.latents + nudge) - energy(lane.latents - nudge)) / 2e-5)
    got = torch.stack([change[:, 0, 0, 0], change[:, 2, 5, 7], change[:, 3, 7, 1]])
    torch.testing.assert_close(got / got[0], torch.stack(slopes) / slopes[0], rtol=1e-5, atol=1e-9)
    expected = 0.5 * FULL * relative_length(guide.path, time)
    torch.testing.assert_close(lengths(change), torch.full((2,), expected, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("family", [SD, MINI, SDXL], ids=lambda one: one.name)
def test_features_of_the_block_are_named_in_the_order_they_run(family, true_pipes, mini):
    unet = mini.unet if family is MINI else true_pipes["sdxl" if family is SDXL else "sd1"].unet
    sites, fired = family.structure_sites(unet, "all", "block"), []
    handles = [unet.get_submodule(s).register_forward_hook(lambda *_, s=s: fired.append(s)) for s in sites]
    engine_inputs(unet)
    for handle in handles:
        handle.remove()
    assert fired == sites
    assert [site for site in sites if site.endswith("to_k")] == family.structure_sites(unet)
    kinds = [site.rpartition(".")[2] for site in sites]
    assert kinds.count("to_q") == kinds.count("to_k")
    assert kinds.count("conv2") == len({site.partition(".transformer")[0] for site in sites if "attn1" in site})


def engine_inputs(unet) -> None:
    config = unet.config
    added = None
    if config.addition_embed_type:
        text = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros(1, text), "time_ids": torch.zeros(1, 6)}
    with torch.no_grad():
        unet(torch.zeros(1, config.in_channels, 16, 16), 500, torch.zeros(1, 7, config.cross_attention_dim),
             added_cond_kwargs=added)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"structure_weight": 300.0}, "structure_weight: found 300 with update=relative"),
        ({**PRESETS["official"], "structure_strength": 0.5}, "structure_strength: found 0.5 with update=official"),
    ],
)
def test_a_dial_of_another_update_is_refused(settings, named):
    with pytest.raises(InputError, match=named):
        FreeControl().check(FreeControlSettings(**settings), [])


def test_the_scale_of_guidance_is_the_methods_own_on_the_embedded_model():
    method = FreeControl()
    assert method.guidance_scale(FreeControlSettings(), MINI) < MINI.guidance_scale
    assert method.guidance_scale(FreeControlSettings(**PRESETS["official"]), MINI) == MINI.guidance_scale
    assert method.guidance_scale(FreeControlSettings(), SD) == SD.guidance_scale


# On the embedded model, whose guided steps are real


@pytest.fixture(scope="module")
def mini() -> FreeControlPipeline:
    pipe = FreeControlPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def edited(mini):
    pictures = [Image.open(prompts_file(f"images/{name}")).convert("RGB").resize((64, 64)) for name in ("fox.png",)]
    prompts, cache = ["a fluent cat on a blue background", "a noto car on a green background"], Cache()

    def call(*which: int, steps: int = 4, **options) -> Tensor:
        return mini(
            [prompts[i] for i in which], pictures * len(which), source_prompt="a fox", num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(i) for i in which], cache=cache,
            **({"output_type": "pt"} | options),
        ).images  # fmt: skip

    return call


def levels(one: Tensor, other: Tensor) -> float:
    """Mean difference of pictures 0 to 1, in levels of 8 bits."""
    return 255 * float((one - other).abs().mean())


def test_rounding_does_not_grow(mini, edited):
    """A millionth on the start moves the finished picture by less than a level on average."""
    engine, picture = Engine(mini), Image.open(prompts_file("images/fox.png")).convert("RGB").resize((64, 64))
    start = engine.invert(picture, "a fox", engine.path(8))[0].start
    nudge = 1e-6 * normal(*start.shape, seed=3)
    assert levels(edited(0, steps=8, latents=start), edited(0, steps=8, latents=start + nudge)) < 1


def test_batches_give_the_same_pictures(edited):
    alone = [edited(i) for i in (0, 1)]
    assert levels(edited(0, 1), torch.cat(alone)) < 2
    assert levels(*alone) > 10


def test_threads_give_the_same_picture(mini, edited):
    """One guided step of one row, decoded by one thread: on a busy machine two threads mostly wait for each other."""
    few = {"steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    one = edited(1, **few)
    torch.set_num_threads(2)
    two = edited(1, **few)
    torch.set_num_threads(1)
    with torch.no_grad():
        decoded = [Engine(mini).decode(latents) for latents in (one, two)]
    assert levels(*decoded) / 2 < 2
