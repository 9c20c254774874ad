"""Energies against plain loops in float64, their gradients against finite differences, their limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from freectl.errors import InputError
from freectl.semantics.energies import (
    appearance_energy,
    appearance_vectors,
    appearance_weights,
    normalise_coordinates,
    structure_energy,
)

B, T, N, C = 2, 6, 3, 5


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coordinates(seed: int = 0, batch: int = B) -> Tensor:
    return noise(batch, T, N, seed=seed)


def two_regions(batch: int = B) -> Tensor:
    mask = torch.zeros(batch, T)
    mask[0, :2] = mask[1:, 3:] = 1
    return mask


def loop_structure(s, ref, mask, *, weight, reduction, area) -> list[float]:
    energies = []
    for b in range(len(s)):
        m = [float(x) for x in mask[b]]
        inside = outside = 0.0
        background = [i for i in range(T) if m[i] < 0.5]
        for i in range(T):
            forward = back = 0.0
            for k in range(N):
                forward += (float(s[b, i, k]) - float(ref[b, i, k])) ** 2
                if background:
                    tau = max(float(ref[b, j, k]) for j in background)
                    back += max(float(s[b, i, k]) - tau, 0.0) ** 2
            divisor = N if reduction == "mean" else 1
            inside += m[i] * forward / divisor
            outside += (1 - m[i]) * back / divisor
        total = inside / sum(m)
        if background:
            total += weight * outside / (sum(1 - x for x in m) if area == "unmasked" else T)
        energies.append(total)
    return energies


def test_coordinates_over_the_deviation_make_the_energy_a_share_of_the_variance():
    """Whatever the features' scale, and however few components carry it."""
    s, ref = coordinates(1), coordinates(2)
    share = (s - ref).square().sum(-1).mean(-1) / 7
    for scale in (1.0, 50.0):
        variance = torch.tensor(7 * scale**2)
        one, other = (normalise_coordinates(scale * x, "variance", variance) for x in (s, ref))
        torch.testing.assert_close(structure_energy(one, other), share)
    with pytest.raises(InputError, match="normalize"):
        normalise_coordinates(s, "variance")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("area", ["unmasked", "all"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_structure_energy_equals_loops(reduction, area, data):
    entry = st.floats(0, 1) if data.draw(st.booleans()) else st.sampled_from([0.0, 1.0])
    mask = torch.tensor([[1.0, *data.draw(st.lists(entry, min_size=T - 1, max_size=T - 1))] for _ in range(B)]).double()
    s, ref = coordinates(data.draw(st.integers(0, 50))), coordinates(51)
    got = structure_energy(s, ref, mask=mask, background_weight=3.0, reduction=reduction, background_area=area)
    expected = loop_structure(s, ref, mask, weight=3.0, reduction=reduction, area=area)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_structure_energy_is_the_published_form_for_binary_masks():
    # there: means over selected entries and over everything, tau from s_ref * (1 - m) of coordinates in [0, 1]
    s, ref = (normalise_coordinates(coordinates(seed), "minmax")[:1] for seed in (1, 2))
    mask = two_regions()[:1].double()
    chosen = mask[0].bool()
    tau = (ref[0] * (1 - mask[0])[:, None]).max(0).values
    expected = (s[0, chosen] - ref[0, chosen]).square().mean()
    expected += 10 * (s[0] * (1 - mask[0])[:, None] - tau).clamp(min=0).square().mean()
    got = structure_energy(s, ref, mask=mask, reduction="mean", background_area="all")
    torch.testing.assert_close(got[0], expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_structure_energy_is_zero_with_zero_gradient_at_the_reference(reduction):
    ref = coordinates()
    for mask in (None, two_regions()):
        s = ref.clone().requires_grad_(True)
        energy = structure_energy(s, ref, mask=mask, reduction=reduction)
        assert (energy == 0).all()
        assert (torch.autograd.grad(energy.sum(), s)[0] == 0).all()


@pytest.mark.parametrize("area", ["unmasked", "all"])
def test_mask_of_ones_is_no_mask_also_in_the_gradient(area):
    grads = []
    for mask in (None, torch.ones(B, T), torch.ones(1, T, dtype=torch.bool)):
        s = coordinates(1).requires_grad_(True)
        energy = structure_energy(s, coordinates(2), mask=mask, background_area=area)
        grads.append((energy.detach(), torch.autograd.grad(energy.sum(), s)[0]))
    for energy, grad in grads[1:]:
        torch.testing.assert_close(energy, grads[0][0])
        torch.testing.assert_close(grad, grads[0][1])


def test_one_sample_without_background_leaves_the_other_finite():
    mask = torch.stack([torch.ones(T), two_regions()[1]])
    s = coordinates(1).requires_grad_(True)
    energy = structure_energy(s, coordinates(2), mask=mask)
    assert torch.isfinite(torch.autograd.grad(energy.sum(), s)[0]).all()
    single = structure_energy(s[:1], coordinates(2)[:1])
    torch.testing.assert_close(energy[:1], single)


def test_background_is_penalised_only_above_tau():
    ref = torch.zeros(1, T, 1)
    ref[0, 2] = 1.0  # tau, in the background
    mask = torch.tensor([[1.0, 1, 0, 0, 0, 0]])
    s = ref.clone()
    s[0, 3] = 0.9
    assert structure_energy(s, ref, mask=mask).item() == 0
    s[0, 3] = 3.0
    assert structure_energy(s, ref, mask=mask, background_weight=5.0).item() == pytest.approx(5 * 4 / 4)
    assert structure_energy(s, ref, mask=mask, background_weight=5.0, background_area="all").item() == pytest.approx(
        5 * 4 / T
    )


def test_batch_equals_singles_and_references_broadcast():
    s, ref, mask = coordinates(1), coordinates(2), two_regions()
    batch = structure_energy(s, ref, mask=mask)
    singles = [structure_energy(s[i : i + 1], ref[i : i + 1], mask=mask[i : i + 1]) for i in range(B)]
    torch.testing.assert_close(batch, torch.cat(singles))
    shared = structure_energy(s, ref[:1], mask=mask[:1])
    torch.testing.assert_close(shared, structure_energy(s, ref[:1].expand(B, -1, -1), mask=mask[:1].expand(B, -1)))


def test_reference_gets_no_gradient_and_dtypes_are_wide():
    ref = coordinates(2).requires_grad_(True)
    assert not structure_energy(coordinates(1), ref).requires_grad
    assert not appearance_energy(coordinates(1), ref).requires_grad
    assert structure_energy(coordinates(1), ref).dtype == torch.float64
    half, half_ref = coordinates(1).half(), coordinates(2).half()
    assert structure_energy(half, half_ref, mask=two_regions().half()).dtype == torch.float32
    assert appearance_energy(half, half_ref).dtype == torch.float32
    assert normalise_coordinates(half, "minmax").dtype == normalise_coordinates(half, "none").dtype == torch.float32
    assert appearance_weights(half, 2, "sigmoid").dtype == torch.float32
    assert appearance_vectors(half, half[..., :2]).dtype == torch.float32


def test_structure_energy_gradcheck():
    ref, mask = coordinates(2), torch.tensor([[1, 0.7, 0.2, 0, 0, 1], [0, 0, 1, 1, 1, 0.5]]).double()
    for given_mask in (None, mask):
        s = coordinates(1).requires_grad_(True)
        assert torch.autograd.gradcheck(lambda s, m=given_mask: structure_energy(s, ref, mask=m), s)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mask": torch.zeros(B, T)}, r"no token selected \(sample 0\).*lower the mask threshold"),
        ({"mask": torch.stack([torch.ones(T), torch.zeros(T)])}, "sample 1"),
        ({"mask": torch.full((B, T), 1.5)}, "values from 0 to 1"),
        ({"mask": torch.full((B, T), math.nan)}, "values from 0 to 1"),
        ({"mask": torch.ones(B, T + 1)}, r"\(2, 7\).*\(2, 6\)"),
        ({"mask": torch.ones(B, T, 1)}, "shape"),
        ({"reduction": "max"}, "reduction: found 'max'; allowed: mean, sum"),
        ({"background_area": "some"}, "unmasked, all"),
    ],
)
def test_structure_energy_bad_arguments(kwargs, message):
    with pytest.raises(InputError, match=message):
        structure_energy(coordinates(1), coordinates(2), **kwargs)


@pytest.mark.parametrize("ref", [noise(B, T + 1, N), noise(B + 1, T, N), noise(T, N)])
def test_energies_reject_shapes_that_do_not_fit(ref):
    with pytest.raises(InputError, match="coordinates: found shapes"):
        structure_energy(coordinates(), ref)
    with pytest.raises(InputError, match="appearance vectors: found shapes"):
        appearance_energy(coordinates(), ref)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 100), offset=st.floats(-100, 100))
def test_minmax_equals_loops_and_ignores_scale_and_offset(seed, scale, offset):
    s = coordinates(seed)
    got = normalise_coordinates(s, "minmax")
    for b in range(B):
        for k in range(N):
            column = [float(x) for x in s[b, :, k]]
            low, high = min(column), max(column)
            expected = [(x - low) / (high - low + 1e-7) for x in column]
            torch.testing.assert_close(got[b, :, k], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(normalise_coordinates(s * scale + offset, "minmax"), got, rtol=1e-4, atol=1e-5)


def test_normalise_gradient_sees_constant_limits_and_flat_input_is_zero():
    s = coordinates().requires_grad_(True)
    (grad,) = torch.autograd.grad(normalise_coordinates(s, "minmax").sum(), s)
    spread = s.detach().amax(1, keepdim=True) - s.detach().amin(1, keepdim=True)
    torch.testing.assert_close(grad, (1 / (spread + 1e-7)).expand_as(grad))
    assert torch.equal(normalise_coordinates(s, "none"), s)
    assert (normalise_coordinates(torch.full((1, T, N), 3.0), "minmax") == 0).all()
    with pytest.raises(InputError, match="minmax, none"):
        normalise_coordinates(s, "zscore")


def test_sigmoid_and_gated_weights_equal_loops():
    s = coordinates()
    sigmoid, gated = appearance_weights(s, 2, "sigmoid"), appearance_weights(s, 2, "gated", threshold=0.6)
    assert sigmoid.shape == gated.shape == (B, T, 2)
    for b in range(B):
        for k in range(2):
            column = [float(x) for x in s[b, :, k]]
            low, high = min(column), max(column)
            for i, value in enumerate(column):
                assert sigmoid[b, i, k].item() == pytest.approx(1 / (1 + math.exp(-value)))
                scaled = (value - low) / (high - low + 1e-7)
                assert gated[b, i, k].item() == pytest.approx(scaled if scaled > 0.6 else 0.0)


def test_gated_gradient_flows_through_kept_values_only():
    s = coordinates().requires_grad_(True)
    weights = appearance_weights(s, N, "gated")
    (grad,) = torch.autograd.grad(weights.sum(), s)
    assert ((grad != 0) == (weights > 0)).all()


@pytest.mark.parametrize(
    ("n", "mode", "message"),
    [(0, "sigmoid", "1 to 3"), (N + 1, "gated", "1 to 3"), (1, "hard", "sigmoid, gated")],
)
def test_weights_bad_arguments(n, mode, message):
    with pytest.raises(InputError, match=message):
        appearance_weights(coordinates(), n, mode)


def test_vectors_and_energy_equal_loops():
    features, weights, ref = noise(B, T, C, seed=1), noise(B, T, 2, seed=2).abs(), noise(B, 2, C, seed=3)
    v = appearance_vectors(features, weights)
    sums = torch.zeros(B, 2, C, dtype=torch.float64)
    for b in range(B):
        for k in range(2):
            for c in range(C):
                top = sum(float(weights[b, i, k]) * float(features[b, i, c]) for i in range(T))
                sums[b, k, c] = top / (sum(float(weights[b, i, k]) for i in range(T)) + 1e-5)
    torch.testing.assert_close(v, sums, rtol=1e-9, atol=1e-12)
    for reduction, divisor in (("sum", 2), ("mean", 2 * C)):
        expected = [sum((float(x) - float(y)) ** 2 for x, y in zip(v[b].flatten(), ref[b].flatten(), strict=True))
                    for b in range(B)]  # fmt: skip
        got = appearance_energy(v, ref, reduction)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64) / divisor)
    torch.testing.assert_close(appearance_energy(v, ref)[0], torch.nn.functional.mse_loss(v[0], ref[0]))


def test_vectors_ignore_autocast_and_survive_zero_weights():
    features = noise(B, T, C).float()
    weights = appearance_weights(coordinates(), 2, "sigmoid").float()
    plain = appearance_vectors(features, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(appearance_vectors(features, weights), plain)
    assert (appearance_vectors(features, torch.zeros(B, T, 2)) == 0).all()
    with pytest.raises(InputError, match="appearance weights"):
        appearance_vectors(features, weights[:, 1:])


@pytest.mark.parametrize("mode", ["sigmoid", "gated"])
def test_appearance_energy_zero_at_minimum_batch_equals_singles_and_gradcheck(mode):
    features = noise(B, T, C, seed=1).requires_grad_(True)
    s = coordinates().requires_grad_(mode == "sigmoid")  # the gate's limits are constants, unlike finite differences
    ref = noise(B, 2, C, seed=3)

    def energy(features: Tensor, s: Tensor) -> Tensor:
        return appearance_energy(appearance_vectors(features, appearance_weights(s, 2, mode)), ref, "sum")

    assert torch.autograd.gradcheck(energy, (features, s))
    v = appearance_vectors(features, appearance_weights(s, 2, mode))
    assert (appearance_energy(v, v) == 0).all()
    singles = [appearance_energy(v[i : i + 1], ref[i : i + 1]) for i in range(B)]
    torch.testing.assert_close(appearance_energy(v, ref), torch.cat(singles))
    torch.testing.assert_close(appearance_energy(v, ref[:1]), appearance_energy(v, ref[:1].expand(B, -1, -1)))
