"""Distances of single pictures against scikit-image, numpy and closed forms."""

import math

import numpy as np
import pytest
import torch
from metric_kit import flat, pictures, toy_clip
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure

from eval.scores.metrics import (
    KeyNetwork,
    class_similarity,
    clip_accuracy,
    clip_directional,
    clip_distance,
    clip_score,
    lpips,
    mse,
    psnr,
    self_similarity,
    self_similarity_distance,
    ssim,
    timm_classes,
    timm_keys,
)


def test_pixel_distances_equal_scikit_image() -> None:
    one, other = pictures(0), pictures(1)
    for index in range(len(one)):
        a, b = (p[index].permute(1, 2, 0).double().numpy() for p in (one, other))
        assert float(mse(one, other).values[index]) == pytest.approx(mean_squared_error(a, b), rel=1e-5)
        assert float(psnr(one, other).values[index]) == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), rel=1e-5
        )
        oracle = structural_similarity(
            a, b, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ssim(one, other).values[index]) == pytest.approx(oracle, abs=2e-5)


def test_ssim_of_pie_bench_leaves_out_the_border_that_newer_torchmetrics_counts() -> None:
    """PIE-Bench's tables are by torchmetrics 1.2.1, whose mean leaves out five pixels at each side; 1.9 has all."""
    one, other = pictures(0).double(), pictures(1).double()
    keep = torch.ones(3, 1, 32, 32)
    keep[..., 10:20, 12:22] = 0
    like = {"channel_axis": 2, "data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    inner, whole = [], []
    for pair in zip(one * keep, other * keep, strict=True):
        a, b = (np.pad(p.permute(1, 2, 0).numpy(), ((5, 5), (5, 5), (0, 0)), mode="reflect") for p in pair)
        maps = structural_similarity(a, b, full=True, **like)[1][5:-5, 5:-5]
        inner.append(maps[5:-5, 5:-5].mean())
        whole.append(maps.mean())
    assert ssim(one, other, keep, "pie").values.tolist() == pytest.approx(inner, abs=1e-9)
    installed = structural_similarity_index_measure(one * keep, other * keep, data_range=1.0, reduction="none")
    assert installed.tolist() == pytest.approx(whole, abs=1e-9)
    assert min(abs(a - b) for a, b in zip(inner, whole, strict=True)) > 1e-3


def test_equal_pictures_give_the_extreme_value() -> None:
    one = pictures(0)
    assert torch.equal(mse(one, one).values, torch.zeros(3))
    assert bool(psnr(one, one).values.isinf().all())
    assert ssim(one.double(), one.double()).mean == pytest.approx(1, abs=1e-9)
    assert ssim(one, one).mean == pytest.approx(1, abs=5e-4)
    assert clip_distance(one, one, toy_clip()).mean == pytest.approx(0, abs=1e-6)


def test_masked_mean_is_the_distance_of_the_kept_pixels() -> None:
    one, other = pictures(0), pictures(1)
    keep = torch.zeros(3, 1, 32, 32)
    keep[..., 8:20] = 1
    inside = mse(one[..., 8:20], other[..., 8:20]).values
    assert torch.allclose(mse(one, other, keep).values, inside)
    assert torch.allclose(mse(one, other, keep, "pie").values, inside * 12 / 32)
    assert torch.allclose(psnr(one, other, keep, "pie").values, -10 * (inside * 12 / 32).log10())
    assert ssim(one, one, keep).mean == pytest.approx(1, abs=1e-5)


def test_a_change_outside_the_mask_does_not_count() -> None:
    one = pictures(0)
    other = one.clone()
    other[..., :4] = 1 - other[..., :4]
    keep = torch.ones(3, 1, 32, 32)
    keep[..., :4] = 0
    for convention in ("masked", "pie"):
        assert mse(one, other, keep, convention).mean == 0
    assert mse(one, other).mean > 0


def test_an_empty_mask_has_no_value() -> None:
    one, keep = pictures(0), torch.zeros(3, 1, 32, 32)
    for result in (mse(one, one, keep), ssim(one, one, keep), ssim(one, one, keep, "pie")):
        assert bool(result.values.isnan().all())


def test_lpips_passes_pictures_in_minus_one_to_one_and_masks_both() -> None:
    one, other = pictures(0), pictures(1)
    keep = torch.zeros(3, 1, 32, 32)
    keep[..., :16, :] = 1

    def network(a, b):
        return (a - b).abs().sum((1, 2, 3))

    whole = lpips(one, other, network, "toy")
    assert torch.allclose(whole.values, 2 * (one - other).abs().sum((1, 2, 3)), rtol=1e-5)
    half = lpips(one, other, network, "toy", keep)
    assert torch.allclose(half.values, 2 * (one - other)[..., :16, :].abs().sum((1, 2, 3)), rtol=1e-5)
    assert whole.network == "toy"


def test_clip_score_is_the_cosine() -> None:
    score = clip_score(flat(0.6, 0.8, 0.0), ["red"], toy_clip())
    assert score.mean == pytest.approx(0.6)
    assert score.network == "toy"


def test_directional_similarity_compares_the_directions_of_change() -> None:
    red, green = flat(1.0, 0.0, 0.0), flat(0.0, 1.0, 0.0)
    assert clip_directional(green, red, ["green"], ["red"], toy_clip()).mean == pytest.approx(1, abs=1e-5)
    assert clip_directional(red, green, ["green"], ["red"], toy_clip()).mean == pytest.approx(-1, abs=1e-5)
    # no change is no step towards the text: 0, as torch's cosine of a zero vector, and not left out of a mean
    assert clip_directional(red, red, ["green"], ["red"], toy_clip()).mean == 0
    assert math.isnan(clip_directional(green, red, ["red"], ["red"], toy_clip()).mean)


def test_accuracy_asks_which_text_is_nearer() -> None:
    both = torch.cat([flat(0.9, 0.4, 0.0), flat(0.4, 0.9, 0.0)])
    assert clip_accuracy(both, ["red", "red"], ["green", "green"], toy_clip()).values.tolist() == [1, 0]


def naive_self_similarity(keys: np.ndarray) -> np.ndarray:
    tokens = len(keys)
    found = np.zeros((tokens, tokens))
    for i in range(tokens):
        for j in range(tokens):
            found[i, j] = keys[i] @ keys[j] / np.sqrt((keys[i] @ keys[i]) * (keys[j] @ keys[j]))
    return found


def test_self_similarity_equals_a_naive_loop() -> None:
    keys = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    for one, row in zip(self_similarity(keys), keys.double().numpy(), strict=True):
        assert np.allclose(one.numpy(), naive_self_similarity(row), atol=1e-5)


def patch_keys(size: int = 16) -> KeyNetwork:
    return KeyNetwork("patches", lambda p: nn.functional.unfold(p, 8, stride=8).mT, (0.5,) * 3, (0.5,) * 3, size)


def test_self_similarity_distance_equals_the_formula() -> None:
    one, other = pictures(0, side=16), pictures(1, side=16)
    found = self_similarity_distance(one, other, patch_keys())
    for index, value in enumerate(found.values):
        keys = [
            nn.functional.unfold((p[index : index + 1].double() - 0.5) / 0.5, 8, stride=8)[0].T.numpy()
            for p in (one, other)
        ]
        first, second = (naive_self_similarity(k) for k in keys)
        assert float(value) == pytest.approx(np.mean((first - second) ** 2), rel=1e-4)


def test_pie_mode_scales_the_input_by_255_before_normalising() -> None:
    one, other = pictures(0, side=16), pictures(1, side=16)
    splice = self_similarity_distance(one, other, patch_keys())
    pie = self_similarity_distance(one, other, patch_keys(), "pie")
    assert "0 to 255" in pie.note
    assert not torch.allclose(splice.values, pie.values)
    assert self_similarity_distance(one, one, patch_keys(), "pie").mean == 0


@pytest.mark.parametrize(("height", "width"), [(100, 100), (64, 150), (150, 64), (64, 400), (333, 100), (32, 32)])
@pytest.mark.parametrize("mode", ["splice", "pie"])
def test_pictures_are_resized_as_the_published_code_does(height: int, width: int, mode: str) -> None:
    from torchvision.transforms import Compose, Normalize, Resize

    seen = []
    keys = lambda p: seen.append(p) or torch.rand(len(p), 4, 2)  # noqa: E731
    network = KeyNetwork("shapes", keys, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), 32, longest=60)
    one, other = torch.rand(1, 3, height, width), torch.rand(1, 3, height, width)
    self_similarity_distance(one, other, network, mode)
    published = Compose([Resize(32, max_size=60, antialias=False), Normalize(network.mean, network.std)])
    patch = nn.Conv2d(3, 1, 8, stride=8)  # what it does not see does not count
    for found, picture in zip(seen, (one, other), strict=True):
        expected = published(picture * (255 if mode == "pie" else 1))
        assert torch.allclose(found, expected[..., : found.shape[-2], : found.shape[-1]], atol=1e-5)
        assert torch.allclose(patch(found), patch(expected), atol=1e-4, rtol=1e-4)
        assert all(side % 8 == 0 for side in found.shape[-2:])


def test_the_other_picture_takes_the_size_of_the_first() -> None:
    seen = []
    keys = lambda p: seen.append(p.shape) or torch.rand(len(p), 4, 2)  # noqa: E731
    network = KeyNetwork("shapes", keys, (0.5,) * 3, (0.5,) * 3, 16)
    self_similarity_distance(torch.rand(1, 3, 32, 64), torch.rand(1, 3, 64, 64), network)
    assert [tuple(shape[-2:]) for shape in seen] == [(16, 32), (16, 32)]


def test_timm_keys_are_those_of_the_attention() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)
    keys = timm_keys(model)(torch.zeros(2, 3, 32, 32))
    normed = []
    handle = model.blocks[-1].attn.register_forward_hook(lambda _m, inputs, _o: normed.append(inputs[0]))
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    handle.remove()
    weight, bias = model.blocks[-1].attn.qkv.weight, model.blocks[-1].attn.qkv.bias
    assert torch.allclose(keys, normed[0] @ weight[192:384].T + bias[192:384], atol=1e-5)
    assert not model.blocks[-1].attn.qkv._forward_hooks
    assert torch.equal(
        timm_keys(model)(torch.zeros(2, 3, 32, 32, dtype=torch.float64)), keys
    )  # the network's own dtype


def test_dino_i_is_the_cosine_of_the_last_blocks_class_tokens() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)
    classes = timm_classes(model)
    batch = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.norm(classes(batch)), model.forward_features(batch)[:, 0], atol=1e-5)
    network = KeyNetwork("toy", timm_keys(model), (0.5,) * 3, (0.5,) * 3, 32, classes=classes)
    one, other = torch.rand(1, 3, 48, 48), torch.rand(1, 3, 32, 32)
    fitted = torch.nn.functional.interpolate(one, (32, 32), mode="bilinear")
    a, b = (classes((p - 0.5) / 0.5)[0].double().numpy() for p in (fitted, other))
    expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert class_similarity(one, other, network).mean == pytest.approx(expected, abs=1e-5)
    assert class_similarity(one, one, network).mean == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="class tokens"):
        class_similarity(one, other, KeyNetwork("keys", timm_keys(model), (0.5,) * 3, (0.5,) * 3, 32))


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        (torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 24), "equal shapes"),
        (torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16), r"\(B, 3, H, W\)"),
        (torch.rand(1, 3, 16, 16) * 255, torch.rand(1, 3, 16, 16), "0 to 1"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.rand(1, 3, 16, 16), "floating point"),
    ],
)
def test_wrong_inputs_are_named(one, other, text) -> None:
    with pytest.raises(ValueError, match=text):
        mse(one, other)


def test_wrong_masks_are_named() -> None:
    one = pictures(0)
    with pytest.raises(ValueError, match="expected \\(3, 1, 32, 32\\)"):
        mse(one, one, torch.ones(3, 1, 16, 16))
    with pytest.raises(ValueError, match="0 and 1"):
        mse(one, one, torch.full((3, 1, 32, 32), 0.5))
