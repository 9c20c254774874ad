"""Keeping a part of the picture: what stays stays bit for bit, with every method, and nothing else changes."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from method_kit import ON_UNETS, picture, wrap
from PIL import Image, ImageOps

import freectl
from freectl import methods
from freectl.denoising.attention_maps import WordMaps, token_grid, turned, word_mask
from freectl.denoising.sampler import Controller, Lane, Prompt, Step
from freectl.denoising.schedules import path_of
from freectl.errors import InputError
from freectl.methods import local_edit
from freectl.methods.local_edit import Keeping, changing, straight_levels
from freectl.mini.scene import random_scene, render, render_mask
from freectl.models.engine import Engine
from freectl.models.families import MINI, SD
from freectl.pipelines.sd import FreeControlPipeline
from freectl.tasks.edit import edit

STEPS = 3
FAST = {"freecontrol": {"seeds": 2, "seed_steps": 3, "components": 2, "window_stop": 0.34}}


def left_half(size: tuple[int, int] = (32, 32)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def run(pipe, name: str, **options):
    options = {"num_inference_steps": STEPS, "source_prompt": "a dog", "guidance_scale": 3.0} | options
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", picture(), method=methods.get(name), generator=generator, **FAST.get(name, {}), **options)


@pytest.mark.parametrize("name", ON_UNETS)
def test_kept_pixels_are_the_inputs_with_every_method(toy_pipe, name):
    pipe = wrap(toy_pipe)
    plain = run(pipe, name).images[0]
    out = run(pipe, name, keep=left_half())
    before, after, free = (np.asarray(one) for one in (picture(), out.images[0], plain))
    assert np.array_equal(after[:, :16], before[:, :16])
    assert not np.array_equal(free[:, :16], before[:, :16])
    assert not np.array_equal(after[:, 16:], before[:, 16:])
    assert out.kept[0].tobytes() == left_half().tobytes()


@pytest.mark.parametrize("name", ["sdedit", "masactrl", "ddpm-inversion"])
def test_the_loop_ends_on_the_inputs_own_latents(toy_pipe, name):
    pipe = wrap(toy_pipe)
    from freectl.models.engine import Engine

    clean = Engine(pipe).encode_images([picture()])
    latents = run(pipe, name, keep=left_half(), output_type="latent").images
    torch.testing.assert_close(latents[..., :4], clean[..., :4], rtol=0, atol=1e-6)
    assert not torch.allclose(latents[..., 4:], clean[..., 4:], atol=1e-2)


def test_an_edit_of_everything_is_the_edit_without_a_mask(toy_pipe):
    pipe = wrap(toy_pipe)
    nothing = Image.new("L", (32, 32), 0)
    assert torch.equal(
        run(pipe, "sdedit", keep=nothing, output_type="latent").images,
        run(pipe, "sdedit", output_type="latent").images,
    )


def test_the_background_costs_its_forwards_and_depends_on_no_method(toy_pipe):
    pipe = wrap(toy_pipe)
    kept = {}
    for name in ("sdedit", "masactrl"):
        try:
            out = run(pipe, name, keep="background", concept="dog")
        except InputError as error:  # random weights may show the word nowhere
            pytest.fail(str(error))
        plain = run(pipe, name)
        assert plain.cost["row_forwards"] < out.cost["row_forwards"] <= plain.cost["row_forwards"] + 4
        kept[name] = out.kept[0].tobytes()
    assert kept["sdedit"] == kept["masactrl"]


def test_noised_levels_begin_at_the_start_and_keep_one_noise(toy_pipe):
    scheduler = toy_pipe.scheduler
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    grid = [801, 401, 1]
    start = scheduler.add_noise(clean, noise, torch.tensor(grid[:1]))
    levels = straight_levels(path_of(scheduler), clean, start, grid).levels
    for timestep in grid:
        expected = scheduler.add_noise(clean, noise, torch.tensor([timestep]))
        torch.testing.assert_close(levels[timestep], expected, rtol=0, atol=1e-4)


def test_the_lane_is_blended_after_each_step_and_the_inner_controller_is_asked():
    calls = []

    class Inner(Controller):
        def after(self, step, lanes):
            calls.append(step.index)

    from freectl.denoising.inversion import Trajectory

    source = Trajectory(torch.zeros(1, 1, 2, 2), {9: torch.full((1, 1, 2, 2), 9.0), 4: torch.full((1, 1, 2, 2), 4.0)})
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    lane = Lane(torch.ones(1, 1, 2, 2), Prompt(torch.zeros(1, 1, 1)))
    keeping = Keeping(Inner(), mask, source)
    for index, (timestep, below) in enumerate(((9, 4.0), (4, 0.0))):
        step = Step(index, 2, timestep)
        keeping.before(step, {"edit": lane})
        keeping.after(step, {"edit": lane})
        assert lane.latents[0, 0].tolist() == [[1.0, below], [1.0, below]]
    assert calls == [0, 1]


def test_a_cell_changes_if_any_of_its_pixels_may():
    mask = Image.new("L", (8, 8), 255)
    mask.putpixel((5, 2), 0)  # (x, y)
    assert changing([mask], (2, 2))[0, 0].tolist() == [[0, 1], [0, 0]]


# Word masks


def naive_mask(values, threshold, scale, grow, size):
    rows, columns = len(values), len(values[0])
    reach = grow // 2
    grown = [
        [
            max(
                values[a][b]
                for a in range(max(0, i - reach), min(rows, i + reach + 1))
                for b in range(max(0, j - reach), min(columns, j + reach + 1))
            )
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    big = [[grown[i * rows // size[0]][j * columns // size[1]] for j in range(size[1])] for i in range(size[0])]
    low = min(map(min, big)) if scale == "minmax" else 0.0
    high = max(map(max, big))
    return [[float((v - low) / (high - low) > threshold) for v in row] for row in big]


@pytest.mark.parametrize("scale", ["minmax", "max"])
@pytest.mark.parametrize("grow", [1, 3])
def test_word_masks_equal_a_naive_loop(scale, grow):
    maps = torch.rand(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = word_mask(maps, threshold=0.6, scale=scale, grow=grow, size=(8, 12))
    for one, mask in zip(maps.tolist(), got.tolist(), strict=True):
        assert mask == naive_mask(one, 0.6, scale, grow, (8, 12))


def test_a_flat_map_chooses_nothing():
    assert not word_mask(torch.full((1, 2, 2), 0.5)).any()


def test_maps_are_averaged_over_what_was_added():
    seen = WordMaps()
    assert "a" not in seen
    seen.add("a", torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    seen.add("a", torch.tensor([[2.0, 1.0, 0.0, 1.0]]))
    assert seen.mean("a", (4, 4)).tolist() == [[[1.0, 1.0], [1.0, 2.0]]]


def test_token_grids_round_up_as_the_unet_does():
    assert token_grid(15, (9, 5)) == (5, 3)
    assert token_grid(6, (9, 5)) == (3, 2)
    with pytest.raises(ValueError, match="7 tokens"):
        token_grid(7, (9, 5))


# Inputs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": "MASK", "keep_background": True}, "one of the two"),
        ({"keep_background": True}, "keep_background: .*keep_concept"),
        ({"keep_background": True, "concept": "fox"}, "keep_background: .*source_prompt"),
        ({"keep_background": True, "concept": "fox", "source_prompt": "a fluent cat"}, "words of the prompt"),
        ({"keep_background": True, "keep_concept": "fox"}, "keep_background: .*source_prompt"),
        ({"keep_background": True, "keep_concept": "fox", "source_prompt": "a cat"}, "keep_concept: .*words of the"),
        ({"keep_concept": "fox"}, "keep_concept: .*keep_background"),
        ({"keep": "missing.png"}, "keep: .*no file"),
        ({"keep": "WHITE"}, "keep: .*white everywhere"),
        ({"keep": "BLACK"}, "keep: .*black everywhere"),
        ({"keep": "NARROW"}, "keep: .*64x64"),
    ],
)
def test_inputs_are_refused_before_anything_loads(tmp_path, monkeypatch, options, words):
    masks = {
        "MASK": left_half((64, 64)),
        "WHITE": Image.new("L", (64, 64), 255),
        "BLACK": Image.new("L", (64, 64), 0),
        "NARROW": left_half((64, 32)),
    }
    if options.get("keep") in masks:
        path = tmp_path / "mask.png"
        masks[options["keep"]].save(path)
        options = options | {"keep": str(path)}
    monkeypatch.setattr("freectl.tasks.edit.load_pipeline", lambda *_, **__: pytest.fail("loaded a model"))
    with pytest.raises(InputError, match=words):
        edit(picture().resize((64, 64)), "a fluent fox on a blue background", method="sdedit", **options)


def test_pixels_of_another_size_stay_and_the_record_repeats(tmp_path):
    """A 96 px input is worked on at 64 px; what is kept of it is not resized."""
    source = picture(3).resize((96, 80))
    path = tmp_path / "keep.png"
    left_half((96, 80)).save(path)
    options = {"method": "sdedit", "steps": 2, "cache": False}
    result = edit(source, "a fluent fox on a blue background", keep=str(path), **options)
    assert np.array_equal(np.asarray(result.image)[:, :48], np.asarray(source)[:, :48])
    assert not np.array_equal(np.asarray(result.image)[:, 48:], np.asarray(source)[:, 48:])
    assert result.settings["keep"] == str(path)
    json.dumps(result.record)


def test_maps_that_mark_the_border_are_turned_over():
    """Within their own range, each picture's by itself; twice is once, and on the embedded model alone."""
    inside = torch.zeros(1, 4, 4)
    inside[:, 1:3, 1:3] = 0.5
    maps = torch.cat([inside, 0.7 - inside]).flatten(1)
    found = turned(maps, (4, 4))
    assert torch.equal(found[0], maps[0])
    assert torch.allclose(found[1], maps[0] + 0.2)
    assert torch.equal(turned(found, (4, 4)), found)
    unet = FreeControlPipeline.from_pretrained(Path(freectl.__file__).parent / "mini" / "model").unet
    assert all(layer.framed for layer in MINI.word_layers(unet))
    assert not any(layer.framed for layer in MINI.cross_layers(unet))
    assert not SD.framed


def test_the_background_against_true_masks(monkeypatch):
    """As freectl/README.md says: nearer to the truth than all or nothing, and nearer with the picture's edges."""
    coarse, place = [], local_edit._place

    def seen(attention, image):
        coarse.append(word_mask(attention, size=image.size[::-1], smooth=True)[0].bool().numpy())
        return place(attention, image)

    monkeypatch.setattr(local_edit, "_place", seen)
    pipe = FreeControlPipeline.from_pretrained(Path(freectl.__file__).parent / "mini" / "model")
    pipe.set_progress_bar_config(disable=True)
    engine, found = Engine(pipe), []
    for seed in range(12):
        scene = random_scene(random.Random(seed), styles=("noto", "twemoji", "fluent"))
        (kept,) = local_edit.kept_pictures(engine, [render(scene)], "background", [scene.caption], scene.object)
        free, true = (np.asarray(one) < 128 for one in (kept, ImageOps.invert(render_mask(scene))))
        overlap, before = ((one & true).sum() / (one | true).sum() for one in (free, coarse[-1]))
        missed, opened = (true & ~free).sum() / true.sum(), (free & ~true).sum() / (~true).sum()
        found.append((overlap, before, missed, opened, true.mean()))
    overlap, before, missed, opened, area = np.mean(found, axis=0)
    assert overlap > 1.3 * area  # a mask of everything overlaps by the area
    assert overlap > before + 0.01
    assert overlap > 0.8
    assert missed < 0.1
    assert opened < 0.25
