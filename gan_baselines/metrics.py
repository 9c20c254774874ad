"""Distances between pictures and between collections: pure functions."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn


def mean_l1(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of (N, 3, H, W) pictures, in units of their range [-1, 1]."""
    return float((a - b).abs().mean())


def mean_psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, peak 2 (range [-1, 1]); at most 100 dB."""
    error = (a - b).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error.clamp_min(4e-10))).mean())


def kid(real: Tensor, fake: Tensor) -> float:
    """Kernel distance of two sets of features (N, D), (M, D): unbiased, so it may be slightly negative.

    Squared MMD under k(x, y) = (x.y / D + 1)^3 (arXiv 1801.01401, section 4), on all pairs.
    """
    if len(real) < 2 or len(fake) < 2:
        return float("nan")
    real, fake = real.double(), fake.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def random_network(seed: int = 0, width: int = 32) -> nn.Module:
    """A fixed, untrained convolutional network as feature extractor: crude, but needs no download.

    Four strided convolutions, (N, 3, H, W) to (N, 4 width, H / 16, W / 16).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [3, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for into, out in pairwise(sizes):
            layers += [nn.Conv2d(into, out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers).eval().requires_grad_(False)


@torch.inference_mode()
def pooled_features(network: nn.Module, pictures: Iterable[Tensor], batch: int = 32) -> Tensor:
    """Run `network` on pictures (3, H, W); return mean and standard deviation of each output map, (N, 2C)."""
    stack = torch.stack(list(pictures))
    parts = []
    for chunk in stack.split(batch):
        maps = network(chunk).flatten(2)
        parts.append(torch.cat([maps.mean(2), maps.std(2, unbiased=False)], 1))
    return torch.cat(parts)


def diversity(pictures: Tensor) -> float:
    """Mean L1 between the answers (N, 3, H, W) to one input, over all pairs."""
    flat = pictures.flatten(1)
    distances = torch.cdist(flat, flat, p=1) / flat.shape[1]
    return float(distances.sum() / max(1, len(flat) * (len(flat) - 1)))


def coverage(pictures: Tensor, answers: Tensor) -> float:
    """Share of the true `answers` (M, 3, H, W) that are the nearest one, in L1, of some picture (N, 3, H, W)."""
    nearest = torch.cdist(pictures.flatten(1), answers.flatten(1), p=1).argmin(1)
    return len(set(nearest.tolist())) / len(answers)
