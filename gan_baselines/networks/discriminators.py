"""Discriminators. Each returns its features beside its logits: several models compare pictures in feature space."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Discriminator, Norm
from gan_baselines.networks.convolutions import Conv2d
from gan_baselines.networks.generators import MAX_WIDENING
from gan_baselines.networks.norms import conv_bias, mixes_samples, norm_layer, wrap


class Judgement(NamedTuple):
    """What a discriminator says of N pictures.

    Attributes:
        features: outputs of the layers before the logits, (N, C, H, W) each, coarser later, scale after scale.
        logits: one map (N, 1, H, W) for each scale; higher is more real, 0 undecided.
    """

    features: list[Tensor]
    logits: list[Tensor]


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches (arXiv 1611.07004, section 3.2.2): C64-C128-C256-C512 and a 1-channel convolution.

    `n_layers` 0, 1, 2, 3, 4, 5 gives patches of 1, 16, 34, 70, 142, 286 px. `conditional` judges the pair (input,
    output), stacked, the input of `beside` channels or as many. `scales` > 1 repeats it on halved pictures (arXiv
    1711.11585).
    """

    def __init__(self, n_layers: int = 3, scales: int = 1, conditional: bool = False, *, width: int = 64,
                 norm: Norm | None = None, channels: int = 3, beside: int | None = None) -> None:  # fmt: skip
        super().__init__()
        into = channels + (beside or channels) if conditional else channels
        self.conditional = conditional
        norm = norm or Norm(kind="instance")
        self.scales = nn.ModuleList(nn.ModuleList(_stages(n_layers, into, width, norm)) for _ in range(scales))

    def forward(self, picture: Tensor, condition: Tensor | None = None) -> Judgement:
        """Judge (N, C, H, W) in [-1, 1], next to its `condition` of the same size when conditional."""
        x = torch.cat([condition, picture], 1) if self.conditional and condition is not None else picture
        features, logits = [], []
        for index, layers in enumerate(self.scales):
            stages = cast(nn.ModuleList, layers)
            h = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False) if index else x
            x = h
            for stage in stages[:-1]:
                h = stage(h)
                features.append(h)
            logits.append(stages[-1](h))
        return Judgement(features, logits)


class DcganDiscriminator(nn.Module):
    """Strided 4x4 convolutions down to 4x4, then one logit a picture (arXiv 1511.06434); no norm on the first layer.

    `outputs` logits where pictures are sorted into more kinds than two.
    """

    def __init__(self, size: int = 64, width: int = 64, channels: int = 3, outputs: int = 1) -> None:
        super().__init__()
        stages, into = [], channels
        for level in range(size.bit_length() - 3):
            out = width * min(2**level, MAX_WIDENING)
            norm = [nn.BatchNorm2d(out)] if level else []
            conv = Conv2d(into, out, 4, stride=2, padding=1, bias=False)
            stages.append(nn.Sequential(conv, *norm, nn.LeakyReLU(0.2)))
            into = out
        self.widest = into
        self.stages = nn.ModuleList([*stages, Conv2d(into, outputs, 4, bias=False)])

    def forward(self, picture: Tensor) -> Judgement:
        """Judge (N, 3, size, size) in [-1, 1]; the logits are (N, outputs, 1, 1)."""
        features, h = [], picture
        for stage in self.stages[:-1]:
            h = stage(h)
            features.append(h)
        return Judgement(features, [self.stages[-1](h)])


class CodeReader(nn.Module):
    """Q of InfoGAN: a hidden layer on the last features of a `DcganDiscriminator` of `width` maps of 4x4."""

    def __init__(self, width: int, codes: int, hidden: int = 128) -> None:
        super().__init__()
        first = [nn.Flatten(), nn.Linear(16 * width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*first, nn.Linear(hidden, codes))

    def forward(self, features: Tensor) -> Tensor:
        """(N, width, 4, 4) to (N, codes): logits of the categories, then means of the numbers."""
        return self.layers(features)


def patch_discriminator(config: Discriminator, norm: Norm, conditional: bool = False, channels: int = 3,
                        beside: int | None = None) -> PatchDiscriminator:  # fmt: skip
    """The discriminator that `config` describes."""
    return PatchDiscriminator(config.n_layers, config.scales, conditional, width=config.width, norm=norm,
                              channels=channels, beside=beside)  # fmt: skip


def judge_pair(
    discriminator: nn.Module, real: Tensor, fake: Tensor, condition: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the logits of real and fake pictures under the same `condition`.

    One call on both together where a picture's score does not depend on its batch; batch norm keeps two calls, since
    its statistics would otherwise mix real and fake.
    """
    extra = () if condition is None else (condition,)
    if mixes_samples(discriminator) or real.shape != fake.shape:
        return discriminator(real, *extra).logits, discriminator(fake, *extra).logits
    twice = tuple(torch.cat([c, c]) for c in extra)
    halves = [logits.chunk(2) for logits in discriminator(torch.cat([real, fake]), *twice).logits]
    return [half[0] for half in halves], [half[1] for half in halves]


def judge_features(
    discriminator: nn.Module, real: Tensor, fake: Tensor, condition: Tensor | None = None, first: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the features of real pictures, without gradient, and of fakes, from the layer `first` on."""
    extra = () if condition is None else (condition,)
    with torch.no_grad():
        wanted = discriminator(real, *extra).features
    return wanted[first:], discriminator(fake, *extra).features[first:]


def _stages(n_layers: int, into: int, width: int, norm: Norm) -> list[nn.Module]:
    bias = conv_bias(norm)

    def conv(into: int, out: int, size: int, stride: int, bias: bool = True) -> nn.Module:
        return wrap(norm, Conv2d(into, out, size, stride=stride, padding=(size - 1) // 2, bias=bias))

    if n_layers == 0:
        return [
            nn.Sequential(conv(into, width, 1, 1), nn.LeakyReLU(0.2)),
            nn.Sequential(conv(width, 2 * width, 1, 1, bias), norm_layer(norm, 2 * width), nn.LeakyReLU(0.2)),
            conv(2 * width, 1, 1, 1, bias),
        ]
    stages: list[nn.Module] = [nn.Sequential(conv(into, width, 4, 2), nn.LeakyReLU(0.2))]
    last = width
    for level in range(1, n_layers + 1):
        out = width * min(2**level, MAX_WIDENING)
        strided = conv(last, out, 4, 2 if level < n_layers else 1, bias)
        stages.append(nn.Sequential(strided, norm_layer(norm, out), nn.LeakyReLU(0.2)))
        last = out
    return [*stages, conv(last, 1, 4, 1)]
