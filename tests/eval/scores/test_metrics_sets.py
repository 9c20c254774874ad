"""Distances of sets, label maps and linear probes against closed forms, loops and libraries."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_kit import pictures, toy_clip
from PIL import Image
from result_kit import VARIANTS
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from torch import nn

from eval.report.page import page
from eval.results.reading import read
from eval.results.store import Store
from eval.run.measure import write_sets
from eval.scores.metrics import (
    cmmd,
    compare,
    confusion,
    coverage,
    features_of,
    fid,
    kid,
    linear_accuracy,
    pooled_layers,
    segmentation_scores,
    set_summary,
)
from eval.scores.set_scores import stored_features


def sets(shift: float = 0.5, count: int = 60, width: int = 6):
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return real, torch.randn(count, width, generator=generator, dtype=torch.float64) * 1.3 + shift


def test_fid_equals_the_matrix_root() -> None:
    real, made = sets()
    first, second = (np.cov(x.numpy().T) for x in (real, made))
    means = np.sum((real.numpy().mean(0) - made.numpy().mean(0)) ** 2)
    oracle = means + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert fid(real, made, "toy").mean == pytest.approx(oracle, rel=1e-6)
    assert fid(real, real, "toy").mean == pytest.approx(0, abs=1e-6)


def test_kid_equals_a_naive_loop_and_torchmetrics() -> None:
    real, made = sets(count=20)
    kernel = lambda a, b: float(a @ b / len(a) + 1) ** 3  # noqa: E731
    n = len(real)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    within = [sum(kernel(x[i], x[j]) for i, j in pairs) / (n * (n - 1)) for x in (real, made)]
    across = sum(kernel(a, b) for a in real for b in made) / n**2
    assert kid(real, made, "toy").mean == pytest.approx(sum(within) - 2 * across, rel=1e-8)
    from torchmetrics.image.kid import poly_mmd

    theirs = float(poly_mmd(real, made))  # it takes features, and makes the kernels itself
    assert kid(real, made, "toy").mean == pytest.approx(theirs, rel=1e-8)


def test_kid_of_subsets_repeats_and_is_near_the_whole() -> None:
    real, made = sets(count=200)
    one, again = (kid(real, made, "toy", subsets=40, subset_size=100) for _ in range(2))
    assert torch.equal(one.values, again.values)
    assert one.mean == pytest.approx(kid(real, made, "toy").mean, rel=0.15)


def test_kid_is_unbiased_for_equal_distributions_and_fid_is_not() -> None:
    generator = torch.Generator().manual_seed(3)
    values = []
    for _ in range(30):
        x, y = (torch.randn(25, 8, generator=generator, dtype=torch.float64) for _ in range(2))
        values.append((kid(x, y, "toy").mean, fid(x, y, "toy").mean))
    kids, fids = (np.array(v) for v in zip(*values, strict=True))
    assert abs(kids.mean()) < 2.5 * kids.std() / np.sqrt(len(kids))
    assert fids.mean() > 5 * fids.std() / np.sqrt(len(fids))


def test_cmmd_equals_a_naive_loop_and_vanishes_for_equal_sets() -> None:
    one, other = (features_of(pictures(seed, count, 8), toy_clip().encode_image) for seed, count in ((0, 5), (1, 4)))
    a, b = ((v := embeddings.numpy()) / np.linalg.norm(v, axis=1, keepdims=True) for embeddings in (one, other))
    kernel = lambda x, y: np.mean([[np.exp(-np.sum((p - q) ** 2) / 200) for q in y] for p in x])  # noqa: E731
    oracle = 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    assert cmmd(one, other, "toy").mean == pytest.approx(oracle, rel=1e-4)
    assert cmmd(one, one, "toy").mean == pytest.approx(0, abs=1e-6)
    for wrong in (one[:0], one[:, :-1], one[0]):
        with pytest.raises(ValueError, match="features"):
            cmmd(one, wrong, "toy")


def test_each_network_gets_stored_pictures_at_the_size_that_it_wants(tmp_path: Path) -> None:
    sizes = [(400, 300)] * 3 + [(340, 340)] * 2
    paths = []
    rng = np.random.default_rng(0)
    for index, (width, height) in enumerate(sizes):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    seen = []
    network = lambda p: seen.append(tuple(p.shape)) or p.mean((2, 3))  # noqa: E731
    found = stored_features(paths, network)
    assert seen == [(3, 3, 300, 400), (2, 3, 340, 340)]
    expected = [np.asarray(Image.open(path)).mean((0, 1)) / 255 for path in paths]
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    seen.clear()
    stored_features(paths * 20, network, 299)
    assert seen == [(32, 3, 299, 299)] * 3 + [(4, 3, 299, 299)]


def test_small_sets_lead_with_kid_and_say_why() -> None:
    real, made = sets()
    first, second = set_summary(real, made, "toy")
    assert (first.name, second.name) == ("KID", "FID")
    assert "biased" in first.note
    large = set_summary(*sets(count=1000, width=2), "toy")
    assert large[0].name == "FID"


def test_features_do_not_depend_on_the_batch() -> None:
    both = pictures(0, 40, 8)
    net = nn.Conv2d(3, 2, 3)
    assert torch.allclose(features_of(both, net)[5:6], features_of(both[5:6], net), atol=1e-6)


def test_sets_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        fid(torch.rand(4, 3), torch.rand(4, 2), "toy")


def test_segmentation_scores_equal_counts_by_hand() -> None:
    true = torch.tensor([[0, 0, 0, 1], [1, 1, 2, 2]])
    predicted = torch.tensor([[0, 0, 1, 1], [1, 1, 2, 0]])
    scores = segmentation_scores(confusion(predicted, true, 4))
    assert scores.pixel_accuracy == pytest.approx(6 / 8)
    assert scores.class_accuracy == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert scores.mean_iou == pytest.approx((2 / 4 + 3 / 4 + 1 / 2) / 3)
    perfect = segmentation_scores(confusion(true, true, 4))
    assert perfect.pixel_accuracy == perfect.class_accuracy == perfect.mean_iou == 1


def test_ignored_labels_do_not_count_and_foreign_ones_are_refused() -> None:
    true = torch.tensor([0, 1, 255])
    assert segmentation_scores(confusion(torch.tensor([0, 1, 1]), true, 2, ignore=255)).pixel_accuracy == 1
    with pytest.raises(ValueError, match="0 to 1"):
        confusion(torch.tensor([0, 1, 1]), true, 2)


def test_linear_probe_tells_digits_apart_and_chance_is_chance() -> None:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(600)  # the file is sorted by writer: its rows are not exchangeable
    rows, labels = digits.data[order] / 16, digits.target[order]
    accuracy = linear_accuracy(rows[:400], labels[:400], rows[400:], labels[400:])
    shuffled = np.random.default_rng(0).permutation(labels[:400])
    assert accuracy > 0.85
    assert linear_accuracy(rows[:400], shuffled, rows[400:], labels[400:]) < 0.3


def test_pooled_layers_are_max_pooled_to_four_by_four() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 5, 2, 2))
    batch = pictures(0, 3, 16)
    rows = pooled_layers(net, list(net), batch, batch=2)
    assert rows.shape == (3, (4 + 5) * 16)
    first = net[0](batch)[1].detach()
    assert rows[1, 0] == pytest.approx(float(first[0, :4, :4].max()), rel=1e-6)
    assert not net[0]._forward_hooks


def test_comparison_has_its_controls() -> None:
    digits = load_digits()
    shown = torch.tensor(digits.images[:200] / 16, dtype=torch.float32)[:, None]
    labels = list(digits.target[:200])
    torch.manual_seed(0)
    net = nn.Conv2d(1, 4, 3)
    scores = compare(
        {"random": lambda p: pooled_layers(net, [net], p)}, shown[:150], labels[:150], shown[150:], labels[150:]
    )
    assert set(scores) == {"raw pixels", "random", "PCA of pixels"}
    assert all(0 <= value <= 1 for value in scores.values())


def test_coverage_equals_a_naive_loop_and_tells_a_lost_mode() -> None:
    real, made = sets(shift=1.5, count=40, width=3)
    near = 0
    for i in range(40):
        others = sorted(float((real[i] - real[j]).norm()) for j in range(40) if j != i)
        near += min(float((real[i] - other).norm()) for other in made) <= others[4]
    assert coverage(real, made, "toy").mean == pytest.approx(near / 40)
    assert coverage(real, real, "toy").mean == 1
    two = torch.cat([real[:20], real[:20] + 50])
    assert coverage(two, two[:20], "toy").mean == 0.5


def test_sets_of_results_are_compared_with_their_answers(results_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(results_folder, folder)
    found = write_sets(Store(folder), "mini")
    assert found["reference"] == "exact answers"
    rows = list(found["variants"].values())
    assert [row["count"] for row in rows] == [12, 12, 12]
    assert (rows[0]["coverage"], rows[0]["fid"]) == (1, pytest.approx(0, abs=1e-3))  # the answers themselves
    assert rows[0]["kid"] < rows[1]["kid"] < rows[2]["kid"]  # more and more noise
    text = page(read([folder]), baseline=None, rows=1, published=None)
    assert "KID and FID of fewer than 50 pictures are not printed" in text
    assert "coverage % ↑</th>" in text
    table = text[text.index("<h2>Sets of pictures</h2>") :]
    places = [table.index(f"<td>{variant}</td>") for variant in VARIANTS]
    assert places == sorted(places)
    assert sorted(VARIANTS) != list(VARIANTS)  # the file's own order is another
