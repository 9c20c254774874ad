"""FreeControl on a flow transformer: features, window, weights and gradient against plain computations."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.normalization import RMSNorm
from flow_toy import sd3_pipeline, sd3_transformer
from PIL import Image

import freectl
from freectl.denoising.cost import rows_in
from freectl.denoising.early import early_share
from freectl.denoising.sampler import Lane, Step
from freectl.denoising.schedules import path_of
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.freecontrol.guide import FreeControlGuide, Target, guided_timesteps
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import FreeControlSettings as Settings
from freectl.models.engine import Engine
from freectl.models.families import SD3
from freectl.models.families.transformer import pooled
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import Reference

SIZE = (64, 48)
STEPS = 5
FEW = {"seeds": 2, "seed_steps": STEPS, "components": 3, "concept": "cat"}


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory) -> Any:
    made = freectl.FreeControl3Pipeline.from_pipe(sd3_pipeline(tmp_path_factory.mktemp("sd3")))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def run(pipe):
    cache = Cache()

    def call(prompt: Any = "a cat", image: Any = None, **options: Any) -> Any:
        given = {"num_inference_steps": STEPS, "cache": cache, "output_type": "latent", "guidance_scale": 3.0}
        given |= FEW | {"appearance_weight": 0.1, "source_prompt": "a dog"} | options
        return pipe(prompt, None if "conditions" in options else image or picture(), **given)

    return call


@pytest.mark.parametrize(
    ("network", "leaf"),
    [({}, "attn2.norm_k"), ({"dual": 0}, "attn.norm_k"), ({"qk_norm": None, "dual": 0}, "attn.to_k")],
    ids=["3.5-medium", "3.5-large", "medium"],
)
def test_features_are_the_pictures_keys_before_positions(tmp_path, network, leaf):
    """Normalised keys of the picture's tokens with heads side by side, computed here from the block's input."""
    made = freectl.FreeControl3Pipeline.from_pipe(sd3_pipeline(tmp_path, **network))
    engine, latents = Engine(made), torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    prompt = engine.encode_prompt(["a cat", "a dog"])
    sites = engine.family.structure_sites(engine.network)
    assert sites == [f"transformer_blocks.{i}.{leaf}" for i in (1, 2, 3)]
    before = sites[0].rpartition(".")[0] + ".to_k"
    with torch.no_grad(), tap(engine.network, [sites[0], before]) as seen:
        engine.denoiser.forward(latents, 500.0, prompt.cond, dict(prompt.added["cond"]))
        captured = seen.pop_all()
    got = engine.denoiser.features({sites[0]: captured[sites[0]]}, latents)[sites[0]]
    keys = captured[before].unflatten(-1, (4, 8))
    if leaf != "attn.to_k":
        weight = engine.network.get_submodule(sites[0]).weight
        keys = keys / (keys.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    torch.testing.assert_close(got, keys.flatten(2), rtol=0, atol=1e-5)


def test_fine_grids_are_averaged_to_32_a_side():
    features = torch.randn(1, 40 * 50, 3, generator=torch.Generator().manual_seed(0))
    grid, got = features.view(40, 50, 3), pooled(features, (40, 50)).view(20, 25, 3)
    for row, column in ((0, 0), (7, 13), (19, 24)):
        square = grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(got[row, column], square.mean((0, 1)))
    assert torch.equal(pooled(features[:, :1024], (32, 32)), features[:, :1024])


def wide_norm(module: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.eps) * module.weight


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [10, 28, 50])
def test_the_window_is_one_of_levels_at_any_steps_and_shift(shift, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    path = path_of(FlowMatchEulerDiscreteScheduler(shift=shift)).on(steps)
    settings = Settings(window_level=0.54, warmup=0.0)
    guide = FreeControlGuide(path, settings, [], [])
    guided = [time for i, time in enumerate(path.times) if guide.guided(Step(i, steps, time))]
    assert guided == [time for time in path.times if time >= 540] == guided_timesteps(path.times, settings, path)


def test_the_gradient_is_that_of_finite_differences(pipe):
    """In float64, of both energies, through the norm, the heads and the stop behind the last site."""
    wide = copy.deepcopy(pipe).to(torch.float64)
    for module in wide.transformer.modules():
        if isinstance(module, RMSNorm):  # diffusers takes its variance in fp32, too coarse for a difference
            module.forward = partial(wide_norm, module)
    engine, generator = Engine(wide), torch.Generator().manual_seed(0)
    sites, path = engine.family.structure_sites(engine.network), engine.path(STEPS)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    time = path.times[1]
    basis = {(time, site): Basis(noise(32), torch.linalg.qr(noise(32, 3))[0].T, torch.ones(3)) for site in sites}
    target = Target(
        SemanticBases(basis),
        Reference({key: noise(1, 24, 3) for key in basis}),
        {key: noise(1, 2, 32) for key in basis},
    )
    settings = Settings(update="official", structure_weight=3.0, appearance_weight=2.0, normalize="none",
                        appearance_gate="sigmoid", warmup=0.0, window_level=0.1)  # fmt: skip
    guide = FreeControlGuide(path, settings, [target], sites)
    latents, prompt = noise(1, 4, 8, 12), engine.encode_prompt(["a cat"])
    step = Step(1, STEPS, time)
    _, change = guide._edit_row(step, Lane(latents, prompt), engine.denoiser)
    gradient = change / path.guidance_length(time)

    def energy(x: torch.Tensor) -> float:
        with torch.no_grad(), tap(engine.network, sites) as seen:
            engine.denoiser.rows({"edit": Lane(x, prompt)}, [("edit", "cond")], time)
            return float(guide._energy(step, engine.denoiser.features(seen.pop_all(), x)).sum())

    for place in ((0, 0, 0, 0), (0, 2, 5, 7), (0, 3, 7, 11)):
        nudge = torch.zeros_like(latents)
        nudge[place] = 1e-5
        slope = (energy(latents + nudge) - energy(latents - nudge)) / 2e-5
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_it_pulls_towards_the_pictures_structure(run):
    """Without weights the energy is what sampling leaves; with them it falls, and the latents change."""
    free, guided = (run(structure_strength=w, appearance_weight=0.0, start="noise",
                        generator=torch.Generator().manual_seed(0)) for w in (1e-9, 1.0))  # fmt: skip
    assert len(guided.trace) == len(free.trace) > 1
    assert guided.trace[-1]["structure"] < free.trace[-1]["structure"]
    assert (guided.images - free.images).abs().max() > 1e-3
    assert guided.settings.window_level == 0.54


def test_a_batch_is_its_pictures_one_by_one(run):
    prompts, pictures = ["a cat", "red dog"], [picture(0), picture(1)]
    both = run(prompts, pictures).images
    for i in range(2):
        alone = run(prompts[i], pictures[i]).images
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-4 * float(alone.abs().max()))


def test_conditions_give_structure_to_noise(run):
    made = run(["a cat", "a dog"], conditions=[Condition(picture(), "a dog", "cat")], concept=None, source_prompt="",
               generator=[torch.Generator().manual_seed(i) for i in range(2)])  # fmt: skip
    assert made.images.shape == (2, 4, 12, 16)
    assert torch.isfinite(made.images).all()
    assert (made.images[0] - made.images[1]).abs().max() > 1e-2


def share_of(network: Any, size: tuple[int, int], tokens: int) -> float:
    """Of a row that ends behind the last tapped block."""
    shapes = {"hidden_states": (1, 4, *size), "timestep": (1,), "encoder_hidden_states": (1, tokens, 32),
              "pooled_projections": (1, 32)}  # fmt: skip
    inputs = tuple((name, torch.Size(shape)) for name, shape in shapes.items())
    return early_share(network, tuple(SD3.structure_sites(network)), inputs)


def first_rows(path: Any, settings: Settings, share: float) -> tuple[float, int]:
    """Rows of a first edit with cached bases, and guided steps.

    The inversion passes all guided levels but the noisiest, whose reference ends early; the sibling has two rows a step
    down to the last guided one, the edit two a step.
    """
    guided, steps = guided_timesteps(path.times, settings, path), len(path.times)
    sibling = 2 * (path.times.index(min(guided)) + 1)
    return steps + share + sibling + 2 * steps, len(guided)


def test_a_first_edit_costs_what_is_counted_and_a_repeat_two_rows_a_step(pipe, run):
    made = run(image=picture(5))
    engine = Engine(pipe)
    engine.size = SIZE
    share = share_of(engine.network, (12, 16), 333)
    assert 0.2 < share < 0.6
    expected, guided = first_rows(engine.path(STEPS), made.settings, share)
    assert made.cost["row_forwards"] == pytest.approx(expected, abs=1e-3)
    assert made.cost["row_backwards"] == guided
    formula = FreeControl().row_forwards(STEPS, made.settings)
    assert rows_in(formula, share) == pytest.approx(expected, rel=0.15)
    assert run(image=picture(5)).cost["row_forwards"] == 2 * STEPS


def test_an_edit_of_stable_diffusion_35_medium_at_28_steps_costs_at_most_130_rows(pipe):
    """At its depth and shift, by the count that the test above holds to a run: what a repeat leaves is 56."""
    settings = FreeControl().resolved(Settings(), SD3)
    share = share_of(sd3_transformer(depth=24, dual=13), (8, 8), 333)
    rows, guided = first_rows(Engine(pipe).path(28), settings, share)
    assert 0.3 < share < 0.5
    assert rows == 28 + share + 40 + 56 <= 130
    assert guided == 20


def test_an_exception_leaves_no_hooks(pipe, run):
    def fail(_pipe, _index, _timestep, _tensors):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        run(callback_on_step_end=fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.transformer.modules())
    assert all(weight.requires_grad for weight in pipe.transformer.parameters())


def test_what_does_not_exist_on_a_flow_is_refused(run):
    with pytest.raises(InputError, match="update: found paper on a flow"):
        run(update="paper")
    assert FreeControl().resolved(Settings(window_stop=0.5), SD3).window_level is None
