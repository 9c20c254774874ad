"""Coarse-to-fine generator (arXiv 1711.11585, section 3.1) and its encoder of instances (section 3.4)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Norm
from gan_baselines.networks.convolutions import Conv2d, ConvTranspose2d
from gan_baselines.networks.generators import ResidualBlock
from gan_baselines.networks.norms import norm_layer

INSTANCE = Norm(kind="instance")


class CoarseGenerator(nn.Module):
    """G1: c7s1-w, `downs` halvings, residual blocks, as many doublings; `features` (w maps), then c7s1-3 and tanh."""

    def __init__(self, channels: int, width: int, downs: int, blocks: int, out: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(downs + 1)]
        layers = [nn.ReflectionPad2d(3), *_normed(Conv2d(channels, width, 7), width)]
        for into, w in pairwise(widths):
            layers += _normed(Conv2d(into, w, 3, stride=2, padding=1), w)
        layers += [ResidualBlock(widths[-1], INSTANCE, "reflect", False) for _ in range(blocks)]
        for into, w in pairwise(reversed(widths)):
            layers += _normed(ConvTranspose2d(into, w, 3, stride=2, padding=1, output_padding=1), w)
        self.features = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.ReflectionPad2d(3), Conv2d(width, out, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H, W) in [-1, 1]."""
        return self.last(self.features(x))


class FineGenerator(nn.Module):
    """G2 around G1: half the width at full size, halved, plus the features of G1 on the halved input; then up again."""

    def __init__(self, channels: int, width: int, downs: int, blocks: int, fine_blocks: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.coarse = CoarseGenerator(channels, 2 * half, downs, blocks)
        first = [nn.ReflectionPad2d(3), *_normed(Conv2d(channels, half, 7), half)]
        self.down = nn.Sequential(*first, *_normed(Conv2d(half, 2 * half, 3, stride=2, padding=1), 2 * half))
        inner = [ResidualBlock(2 * half, INSTANCE, "reflect", False) for _ in range(fine_blocks)]
        up = _normed(ConvTranspose2d(2 * half, half, 3, stride=2, padding=1, output_padding=1), half)
        self.up = nn.Sequential(*inner, *up, nn.ReflectionPad2d(3), Conv2d(half, 3, 7), nn.Tanh())

    def forward(self, x: Tensor, coarse_fixed: bool = False) -> Tensor:
        """(N, channels, H, W) to (N, 3, H, W) in [-1, 1]; `coarse_fixed` leaves G1 without gradient."""
        halved = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not coarse_fixed):
            coarse = self.coarse.features(halved)
        return self.up(self.down(x) + coarse)


class InstanceEncoder(nn.Module):
    """Pictures to maps of `numbers`; and for each class a bank of the latest means over instances, to draw from.

    The published code draws from clusters of all training instances instead, which it computes afterwards.
    """

    bank: Tensor
    filled: Tensor

    def __init__(self, width: int, downs: int, numbers: int, labels: int, slots: int) -> None:
        super().__init__()
        self.network = CoarseGenerator(3, width, downs, 0, numbers)
        self.register_buffer("bank", torch.zeros(labels, slots, numbers))
        self.register_buffer("filled", torch.zeros(labels, dtype=torch.long))

    def forward(self, picture: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, numbers, H, W) in [-1, 1]."""
        return self.network(picture)

    @torch.no_grad()
    def keep(self, label: int, mean: Tensor) -> None:
        """Put the mean (numbers,) of an instance in the place of the oldest of its class."""
        self.bank[label, int(self.filled[label]) % self.bank.shape[1]] = mean
        self.filled[label] += 1

    def draw(self, label: int) -> Tensor:
        """A kept mean of the class, drawn by torch's global generator; zeros where there is none."""
        known = min(int(self.filled[label]), self.bank.shape[1])
        place = int(torch.randint(max(1, known), ()))
        return self.bank[label, place]


def _normed(conv: nn.Module, out: int) -> list[nn.Module]:
    return [conv, norm_layer(INSTANCE, out), nn.ReLU(inplace=True)]
