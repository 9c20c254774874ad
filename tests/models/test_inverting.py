"""Pictures that are inverted together: as singly, in fewer calls, each kept on its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from freectl.denoising.noise_prior import NoisePrior
from freectl.files.cache import Cache
from freectl.models import inverting
from freectl.models.engine import Engine
from freectl.models.inverting import Inverter

STEPS = 3
PAIRS = [(Image.new("RGB", (32, 32), colour), text) for colour, text in (("red", "a cat"), ("blue", ""), ("red", ""))]


@pytest.fixture
def engine(toy_pipe, tmp_path) -> Engine:
    toy_pipe.set_progress_bar_config(disable=True)
    return Engine(toy_pipe, cache=Cache(tmp_path))


@contextmanager
def rows_of(engine: Engine) -> Iterator[list[int]]:
    """Rows of each of the network's calls."""
    seen: list[int] = []
    handle = engine.network.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape[0]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_together_as_singly(engine, guidance):
    inverter = Inverter(engine, engine.path(STEPS), guidance_scale=guidance)
    singly = [inverter.each([pair])[0] for pair in PAIRS]
    with rows_of(engine) as rows:
        together = inverter.each(PAIRS)
    # nothing guides an empty text
    assert rows == ([3] * STEPS if guidance == 1 else [2] * STEPS + [2] * STEPS)
    for (one, own), (other, shared) in zip(singly, together, strict=True):
        assert own != shared
        assert torch.equal(one.clean, other.clean)
        assert one.levels.keys() == other.levels.keys()
        assert all(torch.allclose(x, other.levels[time], atol=1e-4) for time, x in one.levels.items())
    assert not torch.allclose(together[0][0].start, together[2][0].start, atol=1e-3)


def test_only_what_is_missing_is_made(engine, monkeypatch):
    monkeypatch.setattr(inverting, "TOGETHER", 2)
    inverter = Inverter(engine, engine.path(STEPS))
    with rows_of(engine) as rows:
        first = inverter.each(PAIRS[:2])
        again = inverter.each(PAIRS)
        last = inverter.each(PAIRS)
    assert rows == [2] * STEPS + [1] * STEPS
    for one, other in zip(again, last, strict=True):
        assert one[1] == other[1]
        assert torch.equal(one[0].start, other[0].start)
    assert [key for _, key in first] == [key for _, key in again[:2]]


def test_a_prior_looks_at_one_picture_at_a_time(engine):
    prior = NoisePrior(rounds=1)
    inverter = Inverter(engine, engine.path(STEPS), prior=prior)
    with rows_of(engine) as rows:
        together = inverter.each(PAIRS[:2])
    assert rows == [1] * (2 * STEPS)
    assert torch.equal(together[0][0].start, inverter.each(PAIRS[:1])[0][0].start)


def test_a_recorder_is_told_which_pictures_go_together(engine, monkeypatch):
    monkeypatch.setattr(inverting, "TOGETHER", 2)
    asked: list[list[int]] = []
    inverter = Inverter(engine, engine.path(STEPS))
    inverter.each(PAIRS, lambda numbers: asked.append(list(numbers)) or engine.denoiser)
    inverter.each(PAIRS, lambda numbers: pytest.fail("nothing is made"))
    assert asked == [[0, 1], [2]]
