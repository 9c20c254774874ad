"""Means and differences with their intervals, against scipy and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binomtest

from eval.scores.intervals import difference, estimate, share, share_difference


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = sum((e := estimate(rng.normal(3, 2, 40).tolist())).low <= 3 <= e.high for _ in range(200))
    assert 0.88 <= held / 200 <= 0.99
    assert estimate([5.0]).low == estimate([5.0]).high == 5
    with pytest.raises(ValueError, match="no values"):
        estimate([])


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 10), (20, 20), (48, 48), (1, 1)])
def test_a_shares_interval_is_wilsons(hits: int, count: int) -> None:
    found = share([1.0] * hits + [0.0] * (count - hits))
    oracle = binomtest(hits, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-6)
    assert (found.mean, found.count) == (hits / count, count)
    with pytest.raises(ValueError, match="no values"):
        share([])


def test_differences_are_taken_case_by_case() -> None:
    base = np.linspace(0, 100, 30)
    ours = base + 1 + np.tile([0.1, -0.1], 15)
    found = difference(list(ours), list(base))
    assert found.mean == pytest.approx(1)
    assert found.clear_of_zero
    assert found.high - found.low < 0.2
    with pytest.raises(ValueError, match="zip"):
        difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize("count", [240, 1000])
@pytest.mark.parametrize("hits", [0, 1, 3, 4, 5, 6, 7, 9, 12])
def test_a_difference_of_shares_is_clear_where_mcnemars_exact_test_says_so(hits: int, count: int) -> None:
    ours, base = [1.0] * count, [0.0] * hits + [1.0] * (count - hits)
    found, back = share_difference(ours, base), share_difference(base, ours)
    significant = hits > 0 and binomtest(hits, hits, 0.5).pvalue < 0.05
    assert found.clear_of_zero == significant
    assert (found.mean, -back.mean) == pytest.approx((hits / count, hits / count))
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low))
    assert found.low < found.high


def test_the_interval_of_a_difference_of_shares_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        both, ours, base = (rng.random(40) < p for p in (0.8, 0.9, 0.7))
        found = share_difference(list((both & ours).astype(float)), list((both & base).astype(float)))
        held += found.low <= 0.8 * 0.2 <= found.high
    assert 0.93 <= held / 400 <= 0.99


def test_one_case_decides_nothing() -> None:
    assert not difference([2.0], [1.0]).clear_of_zero
    assert not share_difference([1.0], [0.0]).clear_of_zero
