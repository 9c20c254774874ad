"""Loss terms against arithmetic by hand, pools, schedules."""

import math

import pytest
import torch

from gan_baselines.losses import discriminator_terms, generator_term, l1, l2, realness
from gan_baselines.metrics import kid, mean_psnr
from gan_baselines.pool import ImagePool
from gan_baselines.schedules import decay_factor, linear

REAL, FAKE = [torch.tensor([[2.0, -1.0]])], [torch.tensor([[0.5, -3.0]])]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_vanilla_is_the_mean_of_logarithms():
    real, fake = discriminator_terms("vanilla", REAL, FAKE)
    assert float(real) == pytest.approx(-(log_sigmoid(2) + log_sigmoid(-1)) / 2)
    assert float(fake) == pytest.approx(-(log_sigmoid(-0.5) + log_sigmoid(3)) / 2)
    assert float(generator_term("vanilla", FAKE)) == pytest.approx(-(log_sigmoid(0.5) + log_sigmoid(-3)) / 2)


def test_lsgan_is_the_mean_of_squares():
    real, fake = discriminator_terms("lsgan", REAL, FAKE)
    assert (float(real), float(fake)) == pytest.approx(((1 + 4) / 2, (0.25 + 9) / 2))
    assert float(generator_term("lsgan", FAKE)) == pytest.approx((0.25 + 16) / 2)


def test_hinge():
    real, fake = discriminator_terms("hinge", REAL, FAKE)
    assert (float(real), float(fake)) == pytest.approx(((0 + 2) / 2, (1.5 + 0) / 2))
    assert float(generator_term("hinge", FAKE)) == pytest.approx(-(0.5 - 3) / 2)


def test_scales_weigh_equally():
    two = [torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 2, 2), 3.0)]
    assert float(generator_term("lsgan", two)) == pytest.approx((0 + 4) / 2)


def test_realness_is_a_score_without_gradient():
    logits = torch.tensor([[[[2.0, 0.0]]], [[[-1.0, -1.0]]]], requires_grad=True)
    assert realness("lsgan", [logits]).tolist() == [1.0, 0.0]
    assert realness("hinge", [logits]).tolist() == [1.0, 0.0]
    expected = [(1 / (1 + math.exp(-2)) + 0.5) / 2, 1 / (1 + math.e)]
    assert realness("vanilla", [logits]).tolist() == pytest.approx(expected)
    assert not realness("lsgan", [logits]).requires_grad


def test_distances_are_per_sample():
    a, b = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, -3.0]]], [[[0.0, 1.0]]]])
    assert l1(a, b).tolist() == [2.0, 0.5]
    assert l2(a, b).tolist() == [5.0, 0.5]


def test_schedule_ends():
    assert [linear(0, 0.9, t) for t in (0, 0.5, 1, 2)] == pytest.approx([0, 0.45, 0.9, 0.9])
    factors = [decay_factor(epoch, 100, 100) for epoch in range(200)]
    assert factors[:100] == [1.0] * 100
    assert factors[100] == pytest.approx(100 / 101)
    assert factors[-1] == pytest.approx(1 / 101)
    assert [decay_factor(step, 5, 0) for step in range(5)] == [1.0] * 5


def test_pool_fills_then_swaps_half():
    pool = ImagePool(50, seed=1)
    first = torch.arange(50.0)[:, None, None, None]
    assert torch.equal(pool(first), first)
    passed = 0
    for value in range(50, 2050):
        shown = float(pool(torch.full((1, 1, 1, 1), float(value))))
        assert shown <= value
        passed += shown == value
    assert 900 < passed < 1100
    assert len(pool) == 50


def test_pool_of_none_passes_and_state_is_exact():
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    assert torch.equal(ImagePool(0)(x), x)
    assert not ImagePool(0)(x).requires_grad
    one, two = ImagePool(3, seed=5), ImagePool(3, seed=9)
    one(torch.randn(5, 1, 1, 1))
    two.restore(*one.state())
    later = torch.randn(20, 1, 1, 1)
    assert torch.equal(one(later), two(later))


def test_psnr_and_kid_by_hand():
    assert mean_psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)) == pytest.approx(20)
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # k(x, y) = (xy + 1)^3: within real 27, within fake 1, across the mean of 1, 8, 1, 27
    assert kid(real, fake) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)
    assert math.isnan(kid(real[:1], fake))
