"""The measuring itself, on toys and without a GPU."""

import math

import pytest
import torch
from flux_kinds import of_small_pictures
from measuring import HEAD, measured
from method_kit import picture, wrap
from random_models import BLOCK_GIB, FLUX_BLOCKS, fitting, flux1_dev

from freectl.models import families
from freectl.models.engine import Engine
from freectl.models.families.transformer import LAST_LEVEL

SMALL = {"seeds": 2, "seed_steps": 12, "components": 3, "concept": "cat"}


def test_steps_are_told_apart_and_their_sum_is_no_more_than_the_edit(toy_pipe):
    pipe, steps = wrap(toy_pipe), 6
    found = measured(pipe, picture(), steps, output_type="latent", **SMALL)
    assert found.rows == pytest.approx(
        pipe("a cat", picture(), num_inference_steps=steps, **SMALL).cost["row_forwards"]
    )
    assert 0 < found.plain < found.edit
    assert 0 < found.guided < found.edit
    assert found.peak_gib > 0
    assert found.line("toy", "plain").count("|") == HEAD.splitlines()[0].count("|")


def test_no_plain_step_is_no_number(toy_pipe):
    found = measured(wrap(toy_pipe), picture(), 2, output_type="latent", window_stop=1.0, **SMALL)
    assert math.isnan(found.plain)
    assert found.guided > 0


def test_flux_is_measured_at_one_row_a_step(toys, monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", of_small_pictures())
    steps, engine = 4, Engine(toys["flux"].ours)
    engine.size = (32, 32)
    found = measured(engine.pipe, picture(), steps, output_type="latent", **SMALL | {"seed_steps": steps})
    sibling = sum(time >= 1000 * LAST_LEVEL for time in engine.path(steps).times)
    bases = SMALL["seeds"] * steps
    assert 0 < found.rows - (bases + 2 * steps + sibling) < 1  # inversion and edit; a reference ends early
    assert found.guided > 0


def test_flux_has_its_published_size_and_the_blocks_that_fit(tmp_path, monkeypatch):
    with torch.device("meta"):
        sizes = [size(flux1_dev(tmp_path / str(blocks), blocks)) for blocks in (FLUX_BLOCKS, FLUX_BLOCKS - 1)]
    assert sizes[0] == 11_901_408_320
    assert (sizes[0] - sizes[1]) * 2 / 2**30 == pytest.approx(BLOCK_GIB, rel=0.05)
    for free, blocks in ((139, FLUX_BLOCKS), (24, 10), (8, 4)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free * 2**30, 0))
        assert fitting() == blocks


def size(pipe) -> int:
    return sum(weight.numel() for weight in pipe.transformer.parameters())
