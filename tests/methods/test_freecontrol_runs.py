"""FreeControl through the pipeline: relations between whole runs, what they cost, and runs under conditions."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from freectl.denoising.cost import rows_in, truncated_share
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.freecontrol.guide import guided_timesteps
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.models.engine import Engine
from freectl.models.families import SD
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics import store
from freectl.semantics.analysis import features_at
from freectl.semantics.reference import ReferenceRecorder, reference_coordinates

SCALE = 4.0
Settings = partial(FreeControlSettings, structure_strength=1.0, appearance_weight=0.1, warmup=0.0, components=5)


@pytest.fixture(scope="module")
def pipe(toy_pipe) -> FreeControlPipeline:
    pipe = FreeControlPipeline.from_pipe(toy_pipe)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache()  # the session's own, so that bases are built once


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def run(pipe, cache: Cache | None, steps: int = 10, **settings: Any):
    few = {"seeds": 4, "seed_steps": 20, "components": 4, "concept": "cat", "output_type": "latent"}
    few |= {"guidance_scale": SCALE, "structure_strength": 1.0, "appearance_weight": 0.2}
    return pipe("a cat", picture(), num_inference_steps=steps, cache=cache, **(few | settings))


def test_zero_weights_are_plain_sampling_from_the_inverted_latent(pipe, cache, toy_pipe):
    got = run(pipe, cache, structure_strength=0.0)
    engine = Engine(pipe)
    trajectory, _ = engine.invert(picture(), "", engine.path(10))
    expected = toy_pipe(
        "a cat", num_inference_steps=10, guidance_scale=SCALE, latents=trajectory.start, output_type="latent"
    ).images
    assert torch.equal(got.images, expected)
    assert not torch.equal(run(pipe, cache).images, expected)
    assert got.cost["row_backwards"] == 0
    assert got.trace == []


def test_row_counts_follow_the_formula(pipe, cache):
    """With cached bases: inversion N + its last level x share + sibling 2 guided + synthesis 2N; then only 2N."""
    steps, guided = 10, 6
    settings = {"window_stop": 0.6, "warmup": 0.1, "source_prompt": "a dog"}
    run(pipe, cache, steps, **settings | {"source_prompt": "a cow"})  # so that bases are there
    share = truncated_share(pipe.unet, Engine(pipe).family.structure_sites(pipe.unet), (8, 8), 77)
    assert 0 < share < 1
    first = run(pipe, cache, steps, **settings).cost
    assert first["cached"] == {"bases": True, "inversion": False, "reference": False}
    assert first["row_forwards"] == pytest.approx(steps + share + 2 * steps + 2 * guided, abs=1e-4)
    assert first["row_backwards"] == guided - 1
    again = run(pipe, cache, steps, **settings).cost
    assert again["cached"] == {"bases": True, "inversion": True, "reference": True}
    assert again["row_forwards"] == 2 * steps
    without = run(pipe, cache, steps, **settings, appearance_weight=0.0).cost
    assert (without["row_forwards"], without["row_backwards"]) == (2 * steps, guided - 1)
    unguided = run(pipe, cache, steps, **settings, guidance_scale=1.0).cost
    assert unguided["row_forwards"] == steps + guided  # another sibling, of one row a step


@pytest.mark.parametrize(
    ("settings", "sibling", "reference"),
    [
        ({}, 30, 1),
        ({"window_start": 0.2}, 30, 0),
        ({"window_start": 0.6}, 0, 0),
        ({"appearance_weight": 0.0}, 0, 1),
        ({"inversion_at": "upper"}, 30, 30),
    ],
)
def test_cost_in_words_is_the_cost(settings, sibling, reference):
    """The sibling runs from the first step on, also when the window starts later; the warm-up's first step is free."""
    made = Settings(**settings)
    text = FreeControl().row_forwards(50, made)
    guided = len(guided_timesteps(list(range(50)), made))
    assert f"inversion 50 + reference {reference} x" in text
    assert f"sibling {2 * sibling} + synthesis 100 " in text
    assert f"{guided} row backwards" in text


@pytest.mark.parametrize("mask", [None, "attention"])
def test_a_reference_is_the_same_wherever_its_levels_are_read(pipe, tmp_path, monkeypatch, mask):
    """Beside the inversion, or later one by one, to the bit; in batches, as bases are made, to rounding."""
    settings = {"source_prompt": "a cat", "mask": mask}
    kept = []
    finished = ReferenceRecorder.finished
    monkeypatch.setattr(
        ReferenceRecorder, "finished", lambda self, t: kept.append((self, t, finished(self, t))) or kept[-1][2]
    )
    beside, later = Cache(tmp_path / "beside"), Cache(tmp_path / "later")
    first = run(pipe, beside, 10, **settings)
    run(pipe, later, 10, **settings)
    later.clear("reference")
    again = run(pipe, later, 10, **settings)
    assert again.cost["cached"] == {"bases": True, "inversion": True, "reference": False}
    assert torch.equal(again.images, first.images)
    recorder, trajectory, made = kept[-1]
    prompt = recorder.engine.encode_prompt([recorder.source_prompt])
    together = features_at(recorder.engine.denoiser, trajectory, prompt, recorder.guided, recorder.sites)
    expected = reference_coordinates(together, recorder.bases, recorder.normalize).coordinates
    for one in (made, kept[0][2]):
        assert one.coordinates.keys() == expected.keys()
        assert all(torch.allclose(one.coordinates[key], expected[key], atol=1e-4) for key in expected)
        assert bool(one.masks) == (mask is not None)


def test_rows_in_stable_diffusions_layout():
    """The formula, which real runs follow, with the executed share of Stable Diffusion 1.5 at 512 px."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, attention_head_dim=8, cross_attention_dim=768)
    share = truncated_share(unet, SD.structure_sites(unet), (64, 64), 77)
    assert share == pytest.approx(0.49, abs=0.01)
    method = FreeControl()
    default = method.resolved(FreeControlSettings(), SD)
    assert rows_in(method.row_forwards(50, default), share) <= 230
    published = FreeControlSettings(**(PRESETS["official"] | {"inversion_steps": None}))
    assert rows_in(method.row_forwards(200, published), share) <= 900
    assert 2 * 200 <= 520  # of which a repeat has the synthesis alone, see above
    whole = FreeControlSettings(**PRESETS["official"])
    assert rows_in(method.row_forwards(200, whole), share) == pytest.approx(999 + 120 * share + 240 + 400)


def test_the_cached_sibling_gives_the_same_bytes_and_serves_other_weights(pipe, cache):
    settings = {"start": "noise", "source_prompt": "a bird", "guidance_scale": 3.0}

    def once(kept: Cache | None, seed: int = 5, **more: Any) -> Any:
        return run(pipe, kept, 4, generator=torch.Generator().manual_seed(seed), **settings, **more)

    first, again, without = once(cache), once(cache), once(None)
    assert first.cost["row_forwards"] > again.cost["row_forwards"] == 2 * 4
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, without.images)
    assert once(cache, structure_strength=0.3).cost["row_forwards"] == 2 * 4
    for change in ({"seed": 6}, {"negative_prompt": "dog"}, {"appearance_components": 1}, {"eta": 0.5}):
        assert once(cache, **change).cost["row_forwards"] > 2 * 4, change


def test_the_sibling_draws_the_edits_noise(pipe, cache):
    """Next to unguided, with fresh noise in each step: edit and sibling are one trajectory, and agree throughout."""
    near = {"structure_strength": 1e-9, "eta": 1.0, "start": "noise"}
    got = run(pipe, cache, 5, generator=torch.Generator().manual_seed(1), **near)
    assert max(entry["appearance"] for entry in got.trace) < 1e-9
    guided = run(pipe, cache, 5, generator=torch.Generator().manual_seed(1), **(near | {"structure_strength": 1.0}))
    assert guided.trace[-1]["appearance"] > 1e-7


def test_first_step_of_the_warmup_has_no_backward():
    assert "29 row backwards" in FreeControl().row_forwards(50, Settings(warmup=0.05))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 24, 28, 37, 200])
@pytest.mark.parametrize("stop", [0.6, 0.9])
def test_bases_reach_every_guided_timestep(pipe, steps, stop):
    """Bases lie on a grid of 50 steps: whatever the run's own grid, its guided timesteps find a near one."""
    engine = Engine(pipe)
    guided = guided_timesteps(engine.timesteps(steps), Settings(window_stop=stop))
    covered = store.needed_stop(engine, guided)
    grid = engine.timesteps(50)
    kept = grid[: round(covered * 50)]
    assert all(min(abs(t - g) for g in kept) <= 20 for t in guided)
    assert covered in (0.6, 1.0)
    if guided[-1] >= 401:
        assert covered == 0.6


def test_any_step_count_runs(pipe, cache):
    for steps in (1, 3, 8):
        assert torch.isfinite(run(pipe, cache, steps, seed_steps=50).images).all()


def test_guidance_lowers_its_own_energy(pipe, cache):
    """Against a run whose weight is next to nothing, so that its energies are recorded but change nothing."""
    free = [e["structure"] for e in run(pipe, cache, structure_strength=1e-9, appearance_weight=0.0).trace]
    held = [e["structure"] for e in run(pipe, cache, structure_strength=0.5, appearance_weight=0.0).trace]
    assert len(free) == 6
    assert held[0] == pytest.approx(free[0], rel=1e-4)  # taken before any guidance
    assert all(h < f for h, f in zip(held[2:], free[2:], strict=True))
    assert np.mean(held[1:]) < 0.9 * np.mean(free[1:])


def test_start_from_noise_uses_the_generator(pipe, cache):
    def start(seed: int, **more: Any) -> Tensor:
        options = {"structure_strength": 0.0, "start": "noise"} | more
        return run(pipe, cache, 2, generator=torch.Generator().manual_seed(seed), **options).images

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
    assert torch.equal(start(1, start="inverted"), start(2, start="inverted"))
    assert torch.equal(start(1, start="inverted", start_noise=0.0), start(1, start="inverted"))
    assert torch.equal(start(1, start="inverted", start_noise=1.0), start(1))
    assert not torch.equal(start(1, start="inverted", start_noise=0.5), start(2, start="inverted", start_noise=0.5))


def test_start_mixes_inversion_and_noise_at_equal_variance(pipe, cache, toy_pipe):
    weights = {"structure_strength": 0.0}
    got = run(pipe, cache, start_noise=0.36, generator=torch.Generator().manual_seed(3), **weights)
    engine = Engine(pipe)
    trajectory, _ = engine.invert(picture(), "", engine.path(10))
    noise = engine.noise(picture().size, [torch.Generator().manual_seed(3)])
    expected = toy_pipe(
        "a cat",
        num_inference_steps=10,
        guidance_scale=SCALE,
        latents=0.8 * trajectory.start + 0.6 * noise,
        output_type="latent",
    ).images
    assert torch.allclose(got.images, expected, atol=1e-5)
    with pytest.raises(InputError, match="start_noise"):
        run(pipe, cache, start="noise", start_noise=0.5)


def test_choices_change_the_result(pipe, cache):
    others = {
        "normalize": "none",
        "layers": "first",
        "features": "keys",
        "seed_features": "inversion",
        "update": "official",
        "reduction": "sum",
        "appearance_gate": "sigmoid",
    }
    base = {"structure_strength": 0.6, "appearance_weight": 1.0, "steps": 5}
    expected = run(pipe, cache, **base).images
    for field, other in others.items():
        assert not torch.equal(run(pipe, cache, **base, **{field: other}).images, expected), field


def test_named_modules_are_compared(pipe, cache):
    """The family's own by their names are its default; others are followed in its place."""
    own = SD.structure_sites(pipe.unet, "all", "keys")
    chosen = run(pipe, cache, sites="+".join(own), layers="first", features="block")
    assert torch.equal(chosen.images, run(pipe, cache, layers="all", features="keys").images)
    with pytest.raises(InputError, match="sites: found 'up_blocks.1.to_q', which the network does not"):
        run(pipe, cache, sites="up_blocks.1.to_q")
    second = run(pipe, cache, sites=own[-1])
    assert second.trace[0]["structure"] > 0
    assert not torch.equal(second.images, chosen.images)


def test_every_setting_is_read_somewhere():
    package = Path(store.__file__).parents[1]
    code = "".join(p.read_text() for p in package.rglob("*.py") if p.parts[-2:] != ("freecontrol", "settings.py"))
    for name in FreeControlSettings.model_fields:
        assert f"settings.{name}" in code, name


def test_presets_are_valid_and_published():
    for preset in PRESETS.values():
        FreeControlSettings(**preset)
    official, paper = (FreeControlSettings(**PRESETS[name]) for name in ("official", "paper"))
    assert (official.update, official.normalize, official.appearance_gate) == ("official", "minmax", "gated")
    assert (paper.update, paper.normalize, paper.appearance_gate) == ("paper", "none", "sigmoid")
    assert official.appearance_weight / official.structure_weight == pytest.approx(0.1)
    assert paper.appearance_weight / paper.structure_weight == pytest.approx(0.2)
    assert paper.seed_features == "inversion"


def trace_is_plain(entries: list[Mapping[str, float]]) -> bool:
    return all(type(value) in (int, float) for entry in entries for value in entry.values())


def test_trace_has_plain_numbers(pipe, cache, recwarn):
    out = run(pipe, cache)
    assert trace_is_plain(out.trace)
    assert all(entry["structure"] > 0 for entry in out.trace)
    assert not [w for w in recwarn if "requires_grad" in str(w.message)]


# Conditions


def under(pipe, cache: Cache | None, *conditions: Condition, steps: int = 4, seed: int = 2, **settings: Any):
    few = {"seeds": 4, "seed_steps": 20, "components": 4, "output_type": "latent", "guidance_scale": SCALE}
    few |= {"structure_strength": 1.0, "appearance_weight": 0.2, "generator": torch.Generator().manual_seed(seed)}
    prompt = settings.pop("prompt", "a cat")
    return pipe(prompt, conditions=list(conditions), num_inference_steps=steps, cache=cache, **(few | settings))


CAT = Condition(picture(), "a cat", "cat")


def test_one_condition_from_its_own_noise_is_an_edit(pipe, cache):
    edit = run(pipe, cache, 4, source_prompt="a cat", appearance_weight=0.2)
    control = under(pipe, cache, CAT, start="inverted")
    assert torch.equal(edit.images, control.images)
    assert edit.trace == control.trace
    noise = under(pipe, cache, CAT)
    assert not torch.equal(noise.images, control.images)
    assert torch.equal(noise.images, under(pipe, cache, CAT, start="noise").images)


def test_a_condition_given_twice_has_twice_the_energy_and_the_same_step(pipe, cache):
    """A step's length is the strength's; beside an appearance, structure then weighs twice."""
    twice, once = (under(pipe, cache, *[CAT] * count, appearance_weight=0.0) for count in (2, 1))
    torch.testing.assert_close(twice.images, once.images, rtol=0, atol=1e-4)
    assert twice.trace[0]["structure"] == pytest.approx(2 * once.trace[0]["structure"], rel=1e-5)
    both, half = under(pipe, cache, CAT, CAT), under(pipe, cache, CAT, appearance_weight=0.1)
    torch.testing.assert_close(both.images, half.images, rtol=0, atol=1e-4)


def test_two_conditions_are_followed_at_once_each_in_its_mask(pipe, cache):
    left = Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    right = left.point(lambda v: 255 - v)
    two = [Condition(picture(1), "a cat", "cat", left), Condition(picture(2), "a dog", "dog", right)]
    alone = [under(pipe, cache, one, appearance_weight=0.0).trace[0]["structure"] for one in two]
    both = under(pipe, cache, *two, appearance_weight=0.0)
    assert both.trace[0]["structure"] == pytest.approx(sum(alone), rel=1e-5)
    again = under(pipe, cache, *two, appearance_weight=0.0)
    assert again.cost["row_forwards"] == 2 * 4
    assert again.cost["cached"] == {"bases": True, "inversion": True, "reference": True}
    batch = under(
        pipe, cache, *two, prompt=["a cat", "a dog"], generator=[torch.Generator().manual_seed(i) for i in (2, 3)]
    )
    for i, text in enumerate(("a cat", "a dog")):
        single = under(pipe, cache, *two, prompt=text, seed=2 + i)
        torch.testing.assert_close(batch.images[i : i + 1], single.images, rtol=0, atol=1e-3)


def test_an_appearance_picture_is_inverted_once(pipe, cache):
    plain = under(pipe, cache, CAT)
    first = under(pipe, cache, CAT, appearance_image=picture(3))
    again = under(pipe, cache, CAT, appearance_image=picture(3))
    assert not torch.equal(plain.images, first.images)
    assert torch.equal(first.images, again.images)
    assert again.cost["row_forwards"] == 2 * 4


@pytest.mark.parametrize(
    ("conditions", "settings", "named"),
    [
        ([CAT], {"mask": "attention"}, "mask: found given"),
        ([CAT], {"concept": "cat"}, "concept: found given"),
        ([Condition(picture(), "a cat", None, "attention")], {}, "mask.*without a concept"),
        ([Condition(picture(), "a dog", "cat", "attention")], {}, "concept.*'cat'.*not in 'a dog'"),
        ([Condition(picture(), "a cat", "cat", "atention")], {}, "mask.*atention"),
        ([Condition(picture(), "a cat", "cat", Image.new("L", (32, 32)))], {}, "mask.*half white"),
        ([CAT, Condition(picture(1), "a cat", "cat")], {"start": "inverted"}, "start: found inverted"),
        ([CAT], {"inversion_steps": 7}, "inversion_steps"),
        ([CAT], {"appearance_image": picture(1), "appearance_weight": 0.0}, "appearance_weight"),
        ([CAT], {"steps": 1001}, "num_inference_steps"),
    ],
)
def test_conditions_that_cannot_be_followed(pipe, cache, conditions, settings, named):
    with pytest.raises(InputError, match=named):
        under(pipe, cache, *conditions, **settings)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())


def test_a_flat_attention_map_says_what_to_try(pipe, cache, monkeypatch):
    """The toy's text says nothing of places when all its tokens are alike."""
    flat = lambda _unet, _seen, _layers, _positions, _size: torch.full((1, 16), 0.25)  # noqa: E731
    monkeypatch.setattr("freectl.semantics.reference.word_maps", flat)
    with pytest.raises(InputError, match="flat.*another source_prompt.*mask none"):
        under(pipe, cache, Condition(picture(9), "a cat", "cat", "attention"))
