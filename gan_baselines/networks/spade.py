"""Spatially-adaptive normalisation and the generator made of it (arXiv 1903.07291, section 3 and appendix A)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import NormKind
from gan_baselines.networks.convolutions import Conv2d
from gan_baselines.networks.norms import InstanceNorm2d, spectral_norm

MOST_WIDENING = 16


class Spade(nn.Module):
    """norm(h) (1 + gamma(m)) + beta(m), both maps computed from the label planes m (eq. 1 with 1 + gamma for gamma).

    The norm has no parameters: batch statistics as published, or those of each picture.
    """

    def __init__(self, channels: int, planes: int, hidden: int, norm: NormKind) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False) if norm == "batch" else InstanceNorm2d(channels)
        self.shared = nn.Sequential(Conv2d(planes, hidden, 3, padding=1), nn.ReLU())
        self.gamma, self.beta = (Conv2d(hidden, channels, 3, padding=1) for _ in range(2))

    def forward(self, h: Tensor, m: Tensor) -> Tensor:
        """(N, channels, H, W) under label planes of any size to the same shape."""
        shared = self.shared(functional.interpolate(m, size=h.shape[-2:]))
        return self.norm(h) * (1 + self.gamma(shared)) + self.beta(shared)


class SpadeBlock(nn.Module):
    """Residual block of two SPADE - LReLU - convolution, the shortcut learned where widths differ (figure 4)."""

    def __init__(self, into: int, out: int, planes: int, hidden: int, norm: NormKind) -> None:
        super().__init__()
        middle = min(into, out)
        self.norms = nn.ModuleList([Spade(into, planes, hidden, norm), Spade(middle, planes, hidden, norm)])
        convs = (Conv2d(into, middle, 3, padding=1), Conv2d(middle, out, 3, padding=1))
        self.convs = nn.ModuleList([spectral_norm(conv) for conv in convs])
        self.learned = into != out
        if self.learned:
            self.shortcut_norm = Spade(into, planes, hidden, norm)
            self.shortcut = spectral_norm(Conv2d(into, out, 1, bias=False))

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H, W)."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(functional.leaky_relu(norm(h, m), 0.2))
        return h + (self.shortcut(self.shortcut_norm(x, m)) if self.learned else x)


class SpadeGenerator(nn.Module):
    """The label planes, or latent numbers, at the coarsest size; SPADE blocks with `ups` doublings between; tanh.

    Widths from 16w (at most) to w, three blocks at the widest. Sides must be multiples of 2**ups; with latent numbers
    `size` is the side.
    """

    def __init__(self, planes: int, width: int, ups: int, hidden: int, norm: NormKind, *, latent: int = 0,
                 size: int = 256) -> None:  # fmt: skip
        super().__init__()
        widths = [width * min(2**level, MOST_WIDENING) for level in reversed(range(ups))]
        self.ups, self.start = ups, (widths[0], size // 2**ups)
        self.first: nn.Module = Conv2d(planes, widths[0], 3, padding=1)
        if latent:
            self.first = nn.Linear(latent, widths[0] * self.start[1] ** 2)
        pairs = [(widths[0], widths[0])] * 3 + list(pairwise(widths))
        self.blocks = nn.ModuleList([SpadeBlock(i, o, planes, hidden, norm) for i, o in pairs])
        self.last = Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, m: Tensor, z: Tensor | None = None) -> Tensor:
        """Label planes (N, planes, H, W), and latent numbers where there are any, to (N, 3, H, W) in [-1, 1]."""
        if z is None:
            coarse = [side // 2**self.ups for side in m.shape[-2:]]
            h = self.first(functional.interpolate(m, size=coarse))
        else:
            h = self.first(z).view(-1, self.start[0], self.start[1], self.start[1])
        for index, block in enumerate(self.blocks):
            h = block(h, m)
            # not between the two middle blocks, nor after the last
            if index != 1 and index < self.ups + 1:
                h = functional.interpolate(h, scale_factor=2.0)
        return torch.tanh(self.last(functional.leaky_relu(h, 0.2)))
