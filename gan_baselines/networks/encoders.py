"""Encoders from a picture to a normal distribution of latent numbers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Norm
from gan_baselines.networks.convolutions import Conv2d
from gan_baselines.networks.norms import norm_layer

MOST_WIDENING = 4


class Gaussian(NamedTuple):
    """N(mean, exp(log_variance)), (N, numbers) each."""

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        """A draw with gradient to both (arXiv 1312.6114, section 2.4)."""
        return self.mean + torch.randn_like(self.mean) * (self.log_variance / 2).exp()


class _HalvingBlock(nn.Module):
    """Pre-activation residual block; both branches are halved by a mean."""

    def __init__(self, into: int, out: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            norm_layer(norm, into), nn.LeakyReLU(0.2), Conv2d(into, into, 3, padding=1),
            norm_layer(norm, into), nn.LeakyReLU(0.2), Conv2d(into, out, 3, padding=1), nn.AvgPool2d(2),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), Conv2d(into, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class PictureEncoder(nn.Module):
    """E of BicycleGAN (arXiv 1711.11586, section 4): a strided convolution, residual blocks, a mean, two linear layers.

    Widths w, 2w, 3w, then 4w; `blocks` halvings after the first. Without a block the mean follows at once.
    """

    def __init__(self, width: int, blocks: int, numbers: int, norm: Norm, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2d(channels, width, 4, stride=2, padding=1)]
        into = width
        for level in range(blocks):
            out = width * min(level + 2, MOST_WIDENING)
            layers.append(_HalvingBlock(into, out, norm))
            into = out
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.mean, self.log_variance = nn.Linear(into, numbers), nn.Linear(into, numbers)

    def forward(self, x: Tensor) -> Gaussian:
        """(N, channels, H, W) to a distribution of `numbers`."""
        h = functional.adaptive_avg_pool2d(self.layers(x), 1).flatten(1)
        return Gaussian(self.mean(h), self.log_variance(h))
