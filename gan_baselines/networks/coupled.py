"""Coupled networks: the layers that know meaning are shared between two domains, those that know pixels are not."""

from typing import cast

import torch
from torch import Tensor, nn

from gan_baselines.networks.discriminators import DcganDiscriminator, Judgement
from gan_baselines.networks.generators import DcganGenerator

LAYERS_A_STAGE = 3  # convolution, norm, ReLU


class CoupledGenerator(nn.Module):
    """Two DCGAN generators on one noise: all layers shared but the last `own` (arXiv 1606.07536, section 3)."""

    def __init__(self, size: int, noise: int, width: int, own: int) -> None:
        super().__init__()
        self.noise = noise
        first, second = (list(DcganGenerator(size, noise, width).layers) for _ in range(2))
        # the last stage is a convolution and tanh, those before have three layers
        cut = max(0, len(first) - 2 - LAYERS_A_STAGE * (own - 1)) if own else len(first)
        self.shared = nn.Sequential(*first[:cut])
        self.own = nn.ModuleDict({"A": nn.Sequential(*first[cut:]), "B": nn.Sequential(*second[cut:])})

    def forward(self, z: Tensor) -> Tensor:
        """(N, noise) to sheets (N, 3, size, 2 size): the picture of A, and that of B right of it."""
        h = self.shared(z[:, :, None, None])
        return torch.cat([self.own[side](h) for side in "AB"], 3)

    def one(self, z: Tensor, side: str) -> Tensor:
        """The picture of one domain."""
        return self.own[side](self.shared(z[:, :, None, None]))


class CoupledDiscriminator(nn.Module):
    """Two DCGAN discriminators whose layers are shared but the first `own`."""

    def __init__(self, size: int, width: int, own: int) -> None:
        super().__init__()
        first, second = (list(DcganDiscriminator(size, width).stages) for _ in range(2))
        self.own = nn.ModuleDict({"A": nn.ModuleList(first[:own]), "B": nn.ModuleList(second[:own])})
        self.shared = nn.ModuleList(first[own:])

    def forward(self, sheet: Tensor) -> Judgement:
        """Judge sheets (N, 3, H, 2H); one map of logits for each domain, as if they were two scales."""
        judged = [self._one(half, side) for half, side in zip(sheet.chunk(2, 3), "AB", strict=True)]
        return Judgement([f for one in judged for f in one[:-1]], [one[-1] for one in judged])

    def _one(self, picture: Tensor, side: str) -> list[Tensor]:
        found, h = [], picture
        for stage in [*cast(nn.ModuleList, self.own[side]), *self.shared]:
            h = stage(h)
            found.append(h)
        return found
