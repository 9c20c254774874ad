"""Networks that grow (arXiv 1710.10196, sections 2 to 4)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.networks.discriminators import Judgement

COARSE = 4


class EqualConv(nn.Module):
    """A 3x3 or 1x1 convolution whose weights, drawn from N(0, 1), are scaled by He's constant at each use (4.1)."""

    def __init__(self, into: int, out: int, kernel: int = 3, gain: float = 2.0, padding: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = (gain / (into * kernel**2)) ** 0.5
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H', W')."""
        return functional.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2) (section 4.2)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def with_deviation(x: Tensor, group: int = 4) -> Tensor:
    """One more plane: the standard deviation over groups of the batch, averaged over everything (section 3)."""
    size = min(group, len(x))
    while len(x) % size:
        size -= 1
    groups = x.view(size, -1, *x.shape[1:]).float()
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    plane = deviation.repeat(size).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
    return torch.cat([x, plane.to(x.dtype)], 1)


def place(progress: float, levels: int) -> tuple[int, float]:
    """Level and share of its fade at `progress` in [0, 1]: each but the first fades in, then stays, equally long."""
    segment = min(max(progress, 0.0), 1.0) * (2 * levels - 1)
    level = min(int((segment + 1) // 2), levels - 1)
    return level, min(max(segment - (2 * level - 1), 0.0), 1.0) if level else 1.0


def halve(x: Tensor) -> Tensor:
    """Means of 2x2."""
    return functional.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return functional.interpolate(x, scale_factor=2.0)


class GrowingGenerator(nn.Module):
    """Noise to 4x4, and a doubling a level; the picture of a level is faded in over the enlarged one below it.

    `reached` is the share of the training that the weights have seen: samples are taken there.
    """

    reached: Tensor

    def __init__(self, noise: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.noise, self.levels = noise, len(widths)
        # one input position meets each weight, so that 2 / (16 noise) is the paper's (sqrt 2 / 4)^2 / noise
        self.first = EqualConv(noise, widths[0], COARSE, padding=COARSE - 1)
        pairs = [(widths[max(0, level - 1)], width) for level, width in enumerate(widths)]
        self.blocks = nn.ModuleList([nn.ModuleList([EqualConv(i, o), EqualConv(o, o)]) for i, o in pairs[1:]])
        self.inner = EqualConv(widths[0], widths[0])
        self.pictures = nn.ModuleList([EqualConv(width, 3, 1, gain=1.0) for width in widths])
        self.register_buffer("reached", torch.zeros(()))

    def forward(self, z: Tensor, progress: float | None = None) -> Tensor:
        """(N, noise) to (N, 3, S, S), S = 4 * 2**level; without `progress` at `reached`, enlarged to the full size."""
        level, share = place(float(self.reached) if progress is None else progress, self.levels)
        h = pixel_norm(functional.leaky_relu(self.first(pixel_norm(z)[:, :, None, None]), 0.2))
        h = pixel_norm(functional.leaky_relu(self.inner(h), 0.2))
        below = h
        for block in list(self.blocks)[:level]:
            below, h = h, double(h)
            for conv in _convs(block):
                h = pixel_norm(functional.leaky_relu(conv(h), 0.2))
        picture = self.pictures[level](h)
        if share < 1:
            picture = torch.lerp(double(self.pictures[level - 1](below)).float(), picture.float(), share)
        for _ in range(self.levels - 1 - level if progress is None else 0):
            picture = double(picture)
        return picture


class GrowingDiscriminator(nn.Module):
    """The mirror image, with the deviation of the batch before the last layers; gives one logit a picture."""

    mixes = True  # of the batch's pictures, by their deviation

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = len(widths)
        self.colours = nn.ModuleList([EqualConv(3, width, 1) for width in widths])
        pairs = [(width, widths[max(0, level - 1)]) for level, width in enumerate(widths)]
        self.blocks = nn.ModuleList([nn.ModuleList([EqualConv(i, i), EqualConv(i, o)]) for i, o in pairs[1:]])
        self.inner = EqualConv(widths[0] + 1, widths[0])
        self.coarse = EqualConv(widths[0], widths[0], COARSE, padding=0)
        self.last = EqualConv(widths[0], 1, 1, gain=1.0)

    def forward(self, picture: Tensor, progress: Tensor) -> Judgement:
        """Judge (N, 3, S, S) at the place of `progress` (N,), equal numbers."""
        level, share = place(float(progress[0]), self.levels)
        h = functional.leaky_relu(self.colours[level](picture), 0.2)
        for index in reversed(range(level)):
            for conv in _convs(self.blocks[index]):
                h = functional.leaky_relu(conv(h), 0.2)
            h = halve(h)
            if index == level - 1 and share < 1:
                below = functional.leaky_relu(self.colours[index](halve(picture)), 0.2)
                h = torch.lerp(below.float(), h.float(), share)
        h = functional.leaky_relu(self.inner(with_deviation(h)), 0.2)
        h = functional.leaky_relu(self.coarse(h), 0.2)
        return Judgement([h], [self.last(h)])


def _convs(block: Any) -> list[nn.Module]:
    return list(block)
