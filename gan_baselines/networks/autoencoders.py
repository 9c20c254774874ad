"""Encoders and decoders that unpaired models share: content, style, and their meeting in AdaIN (arXiv 1804.04732)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Norm
from gan_baselines.networks.convolutions import Conv2d
from gan_baselines.networks.generators import ResidualBlock
from gan_baselines.networks.norms import norm_layer

INSTANCE = Norm(kind="instance")
EPS = 1e-5


def adain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale (x - mean(x)) / std(x) + shift over (H, W), with (N, C) of each (arXiv 1703.06868, eq. 8)."""
    normal = functional.group_norm(x, x.shape[1], eps=EPS)
    return scale[:, :, None, None] * normal + shift[:, :, None, None]


class ContentEncoder(nn.Module):
    """c7s1-w, two halvings by 4x4 convolutions to 4w, residual blocks; instance norm throughout."""

    def __init__(self, width: int, blocks: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            Conv2d(channels, width, 7),
            norm_layer(INSTANCE, width),
            nn.ReLU(),
        ]
        for w in (width, 2 * width):
            conv = Conv2d(w, 2 * w, 4, stride=2)
            layers += [nn.ReflectionPad2d(1), conv, norm_layer(INSTANCE, 2 * w), nn.ReLU()]
        layers += [ResidualBlock(4 * width, INSTANCE, "reflect", False) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4w, H / 4, W / 4)."""
        return self.layers(x)


class StyleEncoder(nn.Module):
    """c7s1-w and four halvings without norm, which would remove the style; a global mean and a linear layer."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), Conv2d(3, width, 7), nn.ReLU()]
        into = width
        for level in range(4):
            out = width * min(2 ** (level + 1), 4)
            layers += [Conv2d(into, out, 4, stride=2, padding=1), nn.ReLU()]
            into = out
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(into, numbers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, numbers)."""
        return self.last(self.layers(x).mean((2, 3)))


class PictureDecoder(nn.Module):
    """Two doublings by nearest resize and a 5x5 convolution with layer norm, then c7s1-3 and tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for w in (2 * width, width):
            conv = Conv2d(2 * w, w, 5)
            layers += [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(2), conv, nn.GroupNorm(1, w), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, content: Tensor) -> Tensor:
        """(N, 4w, h, w) to (N, 3, 4h, 4w) in [-1, 1]."""
        return self.layers(content)


class StyledDecoder(nn.Module):
    """Residual blocks whose norms take scale and shift from an MLP of the style; then `PictureDecoder`."""

    def __init__(self, width: int, blocks: int, numbers: int, hidden: int = 256) -> None:
        super().__init__()
        self.width = 4 * width
        convs = [nn.Sequential(nn.ReflectionPad2d(1), Conv2d(self.width, self.width, 3)) for _ in range(2 * blocks)]
        self.convs = nn.ModuleList(convs)
        sizes = [numbers, hidden, hidden]
        layers = [part for i, o in pairwise(sizes) for part in (nn.Linear(i, o), nn.ReLU())]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, 2 * self.width * len(convs)))
        self.decoder = PictureDecoder(width)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """(N, 4w, h, w) and (N, numbers) to (N, 3, 4h, 4w)."""
        scales, shifts = self.mlp(style).view(len(style), 2, -1, self.width).unbind(1)
        h = content
        for index in range(0, len(self.convs), 2):
            inner = functional.relu(adain(self.convs[index](h), scales[:, index], shifts[:, index]))
            h = h + adain(self.convs[index + 1](inner), scales[:, index + 1], shifts[:, index + 1])
        return self.decoder(h)


class StyledAutoencoder(nn.Module):
    """One domain of MUNIT: picture to content and style, and back."""

    def __init__(self, width: int, blocks: int, numbers: int) -> None:
        super().__init__()
        self.content = ContentEncoder(width, blocks)
        self.style = StyleEncoder(width, numbers)
        self.decode = StyledDecoder(width, blocks, numbers)

    def forward(self, x: Tensor) -> Tensor:
        """The picture again."""
        return self.decode(self.content(x), self.style(x))


def noisy(code: Tensor) -> Tensor:
    """A draw from N(code, 1)."""
    return code + torch.randn_like(code)
