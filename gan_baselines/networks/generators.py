"""Generators: residual (CycleGAN), U-Net (Pix2Pix), transposed convolutions from noise (DCGAN). Outputs in [-1, 1]."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Generator, Norm
from gan_baselines.networks.convolutions import Conv2d, ConvTranspose2d
from gan_baselines.networks.norms import conv_bias, norm_layer, wrap

MAX_WIDENING = 8
_PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": nn.ZeroPad2d}


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), two padded 3x3 convolutions of equal width."""

    def __init__(self, width: int, norm: Norm, pad: str, dropout: bool) -> None:
        super().__init__()
        bias = conv_bias(norm)
        layers: list[nn.Module] = []
        for first in (True, False):
            layers += [_PADS[pad](1), wrap(norm, Conv2d(width, width, 3, bias=bias)), norm_layer(norm, width)]
            if first:
                layers += [nn.ReLU(inplace=True), *([nn.Dropout(0.5)] if dropout else [])]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same shape."""
        return x + self.layers(x)


class ResnetGenerator(nn.Module):
    """c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-3, tanh (arXiv 1703.10593, appendix 7.2); `ends` 7 of both c.

    `up="resize"` replaces the transposed convolution by nearest resize and a 3x3 convolution (no checkerboard), at the
    same number of parameters. Sides must be multiples of 4.
    """

    def __init__(self, blocks: int, width: int, norm: Norm, up: str = "deconv", *, pad: str = "reflect",
                 dropout: bool = False, channels: tuple[int, int] = (3, 3), ends: int = 7) -> None:  # fmt: skip
        super().__init__()
        bias = conv_bias(norm)

        def block(conv: nn.Module, out: int, before: list[nn.Module]) -> list[nn.Module]:
            return [*before, wrap(norm, conv), norm_layer(norm, out), nn.ReLU(inplace=True)]

        w = width
        layers = block(Conv2d(channels[0], w, ends, bias=bias), w, [_PADS[pad](ends // 2)])
        for _ in range(2):
            layers += block(Conv2d(w, 2 * w, 3, stride=2, padding=1, bias=bias), 2 * w, [])
            w *= 2
        self.coded = len(layers) + blocks // 2
        layers += [ResidualBlock(w, norm, pad, dropout) for _ in range(blocks)]
        for _ in range(2):
            if up == "resize":
                before = [nn.Upsample(scale_factor=2), _PADS[pad](1)]
                layers += block(Conv2d(w, w // 2, 3, bias=bias), w // 2, before)
            else:
                conv = ConvTranspose2d(w, w // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
                layers += block(conv, w // 2, [])
            w //= 2
        self.layers = nn.Sequential(*layers, _PADS[pad](ends // 2), Conv2d(w, channels[1], ends), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to the same."""
        return self.layers(x)

    def code(self, x: Tensor) -> Tensor:
        """What half of the residual blocks make of a picture, (N, 4 w, H / 4, W / 4)."""
        return self.layers[: self.coded](x)


class UnetGenerator(nn.Module):
    """4x4 strided encoder and mirrored decoder with skip connections (arXiv 1611.07004, appendix 6.1.1).

    Widths w, 2w, 4w, then 8w. `skips=False` is its encoder-decoder. `dropout` sits in the downs - 5 decoder layers
    after the innermost, where it is the noise z (none with 5 halvings or fewer). Sides must be multiples of 2**downs.
    `latent` numbers enter as planes at the input, or `everywhere` in the encoder (arXiv 1711.11586, section 4).
    """

    def __init__(self, downs: int, width: int, norm: Norm, *, skips: bool = True, dropout: bool = False,
                 channels: tuple[int, int] = (3, 3), latent: int = 0, everywhere: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.skips, self.everywhere = skips, everywhere
        bias = conv_bias(norm)
        widths = [width * min(2**level, MAX_WIDENING) for level in range(downs)]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(widths):
            into = (widths[level - 1] if level else channels[0]) + (latent if everywhere or level == 0 else 0)
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if level else []
            layers.append(wrap(norm, Conv2d(into, out, 4, stride=2, padding=1, bias=bias)))
            # no norm at the bottleneck: on a 1x1 map every norm over (H, W) would erase it
            if 0 < level < downs - 1:
                layers.append(norm_layer(norm, out))
            self.downs.append(nn.Sequential(*layers))
        noisy = range(downs - 2, downs - 2 - max(0, downs - 5), -1) if dropout else range(0)
        for level in reversed(range(downs)):
            into = widths[level] * (2 if skips and level < downs - 1 else 1)
            out = widths[level - 1] if level else channels[1]
            conv = ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=bias or level == 0)
            layers = [nn.ReLU(), wrap(norm, conv) if level else conv]
            layers += [norm_layer(norm, out)] if level else [nn.Tanh()]
            self.ups.append(nn.Sequential(*layers, *([nn.Dropout(0.5)] if level in noisy else [])))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1], and (N, latent) where there are latent numbers, to the same."""
        kept: list[Tensor] = []
        for level, down in enumerate(self.downs):
            x = down(x if z is None or not (level == 0 or self.everywhere) else with_planes(x, z))
            kept.append(x)
        kept.pop()
        for up in self.ups[:-1]:
            x = up(x)
            skip = kept.pop()
            x = torch.cat([skip, x], 1) if self.skips else x
        return self.ups[-1](x)

    def code(self, x: Tensor) -> Tensor:
        """The innermost map of a picture, (N, C, H / 2**downs, W / 2**downs); of networks without latent numbers."""
        for down in self.downs:
            x = down(x)
        return x


def with_planes(x: Tensor, z: Tensor) -> Tensor:
    """(N, C, H, W) with the numbers (N, K) of z as K constant planes behind."""
    return torch.cat([x, z[:, :, None, None].expand(-1, -1, *x.shape[-2:]).to(x.dtype)], 1)


class DcganGenerator(nn.Module):
    """Noise to a 4x4 map by a transposed convolution, doubled by 4x4 ones until `size` (arXiv 1511.06434)."""

    def __init__(self, size: int = 64, noise: int = 100, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        doublings = size.bit_length() - 3
        widths = [width * min(2**level, MAX_WIDENING) for level in reversed(range(doublings))]
        layers: list[nn.Module] = []
        into = noise
        for level, out in enumerate(widths):
            stride, padding = (2, 1) if level else (1, 0)
            conv = ConvTranspose2d(into, out, 4, stride, padding, bias=False)
            layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            into = out
        last = ConvTranspose2d(into, channels, 4, stride=2, padding=1, bias=False)
        self.noise = noise
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """(N, noise) to (N, 3, size, size) in [-1, 1]."""
        return self.layers(z[:, :, None, None])


def picture_generator(config: Generator, norm: Norm, channels: tuple[int, int] = (3, 3)) -> nn.Module:
    """The generator that `config` describes, from and to pictures of so many channels."""
    if config.kind == "unet":
        return UnetGenerator(config.downs, config.width, norm, skips=config.skips, dropout=config.dropout,
                             channels=channels)  # fmt: skip
    return ResnetGenerator(config.blocks, config.width, norm, config.up, pad=config.pad, dropout=config.dropout,
                           channels=channels, ends=config.ends)  # fmt: skip
