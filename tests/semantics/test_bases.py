"""Semantic bases against scikit-learn's PCA, and their file format."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torch import Tensor

from freectl.errors import FreectlError, InputError
from freectl.semantics.bases import Basis, GramAccumulator, SemanticBases

SITE = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
OTHER = "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_k"


def rows(count: int = 300, channels: int = 12, seed: int = 0, offset: float = 0.0) -> Tensor:
    """Correlated rows with clearly separated variances."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    mixing = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
    return ((noise * torch.linspace(3, 0.5, channels)) @ mixing + offset).float()


def fit(x: Tensor, n: int, chunk: int | None = None) -> Basis:
    gram = GramAccumulator()
    for part in x.split(chunk or len(x)):
        gram.add(part)
    return gram.solve(n)


def projector(components: Tensor | np.ndarray) -> np.ndarray:
    components = np.asarray(components, dtype=np.float64)
    return components.T @ components


@pytest.mark.parametrize(("count", "channels", "n"), [(300, 12, 5), (300, 12, 12), (9, 20, 8), (400, 64, 16)])
def test_same_subspace_order_and_variance_as_sklearn(count, channels, n):
    x = rows(count, channels)
    basis = fit(x, n)
    oracle = PCA(n, svd_solver="full").fit(x.double().numpy())
    np.testing.assert_allclose(basis.mean, oracle.mean_, atol=1e-6)
    np.testing.assert_allclose(basis.explained_variance, oracle.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(basis.explained_share(), oracle.explained_variance_ratio_.cumsum(), rtol=1e-5)
    np.testing.assert_allclose(projector(basis.components), projector(oracle.components_), atol=1e-5)
    for ours, theirs in zip(basis.components.numpy(), oracle.components_, strict=True):
        assert abs(ours @ theirs) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(n), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(chunk=st.integers(1, 300), seed=st.integers(0, 99))
def test_streaming_in_chunks_equals_all_at_once(chunk, seed):
    x = rows(seed=seed)
    whole, streamed = fit(x, 4), fit(x, 4, chunk)
    for name in ("mean", "components", "explained_variance"):
        torch.testing.assert_close(getattr(whole, name), getattr(streamed, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [None, 50])
def test_large_offset_does_not_swamp_the_variance(chunk):
    # powers of two keep the shifted rows exact in fp32, so that only the arithmetic is tested
    x = (rows() * 64).round() / 64
    plain, shifted = fit(x, 6), fit(x + 2.0**14, 6, chunk)
    torch.testing.assert_close(shifted.components, plain.components, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shifted.explained_variance, plain.explained_variance, rtol=1e-5, atol=1e-6)
    drifting = torch.cat([x, x + 2.0**10])
    oracle = PCA(6, svd_solver="full").fit(drifting.double().numpy())
    basis = fit(drifting, 6, chunk)
    np.testing.assert_allclose(basis.explained_variance, oracle.explained_variance_, rtol=1e-5)


def test_sign_rule_fixes_every_component_whatever_the_data_sign():
    x = rows()
    for basis in (fit(x, 12), fit(-x, 12)):
        largest = basis.components.abs().argmax(1, keepdim=True)
        assert (basis.components.gather(1, largest) > 0).all()
    torch.testing.assert_close(fit(x, 12).components, fit(-x, 12).components)
    assert torch.equal(fit(x, 12).components, fit(x.clone(), 12).components)


def test_projection_is_fp32_and_equals_sklearn_up_to_sign():
    x = rows()
    basis = fit(x, 5)
    features = x[:24].reshape(2, 3, 4, 12)
    coordinates = basis.project(features)
    assert coordinates.shape == (2, 3, 4, 5)
    oracle = PCA(5, svd_solver="full").fit(x.double().numpy())
    np.testing.assert_allclose(coordinates.reshape(24, 5).abs(), abs(oracle.transform(x[:24])), atol=1e-4)
    assert basis.project(features.half()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(basis.project(features), coordinates)
    assert torch.equal(basis.to("cpu").components, basis.components)


def test_rows_of_any_leading_shape_and_dtype_without_gradient():
    x = rows(240).requires_grad_(True)
    gram = GramAccumulator()
    gram.add(x.reshape(4, 60, 12))
    gram.add(x[:0])
    assert gram.count == 240
    basis = gram.solve(3)
    assert not basis.components.requires_grad
    torch.testing.assert_close(basis.components, fit(x, 3).components)
    assert fit(x.half(), 3).components.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "n", "message"),
    [
        (rows(300), 0, "1 to 12"),
        (rows(300), 13, "13 components for 300 rows of 12 channels; allowed: 1 to 12"),
        (rows(5), 5, "1 to 4"),
        (rows(1), 1, "2 rows or more"),
        (rows(0), 1, "2 rows or more"),
    ],
)
def test_number_of_components_is_checked(x, n, message):
    with pytest.raises(InputError, match=message):
        fit(x, n)


def test_other_bad_rows():
    gram = GramAccumulator()
    gram.add(rows())
    with pytest.raises(InputError, match=r"11 channels.*12"):
        gram.add(rows(channels=11))
    bad = rows()
    bad[3, 4] = torch.inf
    with pytest.raises(FreectlError, match="NaN or infinite"):
        fit(bad, 2)


@pytest.fixture
def bases() -> SemanticBases:
    entries = {(t, SITE): fit(rows(seed=t), 4) for t in (941, 961, 981, 1)}
    return SemanticBases(entries | {(981, OTHER): fit(rows(seed=7), 4)}, {"prompt": "a “cat”", "seeds": [1, 2]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load_give_the_same(bases, tmp_path, dtype):
    path = tmp_path / "bases.safetensors"
    bases.save(path, dtype)
    loaded = SemanticBases.load(path)
    assert loaded.metadata == bases.metadata
    assert set(loaded) == set(bases)
    for key, basis in bases.items():
        assert torch.equal(loaded[key].mean, basis.mean)
        assert torch.equal(loaded[key].explained_variance, basis.explained_variance)
        assert loaded[key].components.dtype == torch.float32
        assert torch.equal(loaded[key].components, basis.components.to(dtype).float())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["seeds"]) == [1, 2]


def test_damaged_foreign_and_missing_files(bases, tmp_path):
    path = tmp_path / "bases.safetensors"
    with pytest.raises(InputError, match="no file"):
        SemanticBases.load(path)
    bases.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        SemanticBases.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="format None"):
        SemanticBases.load(path)
    save_file({"weight": torch.zeros(2)}, path, {"format_version": "99"})
    with pytest.raises(InputError, match="format 99"):
        SemanticBases.load(path)
    save_file({"weight": torch.zeros(2)}, path, {"format_version": "{"})
    with pytest.raises(InputError, match="damaged"):
        SemanticBases.load(path)
    with pytest.raises(InputError, match="a tensor 'weight'"):
        SemanticBases.from_tensors({"weight": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="incomplete at timestep 1, site 'a'"):
        SemanticBases.from_tensors({"1/a/mean": torch.zeros(2)}, {})


def test_nearest_timestep_within_tolerance(bases):
    assert bases.at(981, SITE) is bases[981, SITE]
    assert bases.at(955, SITE) is bases[961, SITE]
    assert bases.at(951, SITE) is bases[941, SITE]  # a tie goes to less noise
    del bases.entries[1, SITE]
    assert len(bases) == 4
    assert bases.timesteps(SITE) == [941, 961, 981]
    assert bases.at(992, SITE) is bases[981, SITE]  # 20 / 2 + 1 away
    with pytest.raises(InputError, match=r"timestep: found 993, nearest basis at 981.*11.*3 from 941 to 981"):
        bases.at(993, SITE)
    assert bases.at(993, SITE, tolerance=12) is bases[981, SITE]
    with pytest.raises(InputError):
        bases.at(980, SITE, tolerance=0)
    assert bases.at(970, SITE, tolerance=8) is bases[961, SITE]  # between two that lie 20 apart
    with pytest.raises(InputError, match="nearest basis at 961"):
        bases.at(970, SITE, tolerance=6)
    assert bases.at(980, OTHER) is bases[981, OTHER]
    with pytest.raises(InputError):
        bases.at(979, OTHER)


def test_unknown_site_names_a_close_one(bases):
    with pytest.raises(InputError, match=SITE):
        bases.at(981, SITE.replace("to_k", "to_q"))
    with pytest.raises(InputError, match="none stored"):
        SemanticBases().at(1, SITE)


def test_files_without_total_variance_count_the_kept_components(bases):
    tensors = {name: value for name, value in bases.tensors().items() if not name.endswith("total_variance")}
    old = SemanticBases.from_tensors(tensors, {})
    share = old[981, SITE].explained_share()
    assert old[981, SITE].total_variance is None
    assert float(share[-1]) == pytest.approx(1)
    assert float(bases[981, SITE].explained_share()[-1]) < 0.9  # 4 of 12 directions
    assert old[981, SITE].to("cpu").total_variance is None


def test_a_save_that_fails_leaves_the_old_file(bases, tmp_path, monkeypatch):
    path = tmp_path / "bases.safetensors"
    bases.save(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("freectl.files.record.os.fsync", full)
    with pytest.raises(FreectlError, match="No space left"):
        bases.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["bases.safetensors"]
    with pytest.raises(FreectlError, match="could not write"):
        bases.save(tmp_path / "none" / "bases.safetensors")
