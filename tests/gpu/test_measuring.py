"""The measuring itself, on a toy and without a GPU."""

import math

import pytest
from measuring import HEAD, measured
from method_kit import picture, wrap

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
