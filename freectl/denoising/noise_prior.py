"""Noise that stays Gaussian: the regularised inversion of pix2pix-zero (arXiv 2302.03027)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.inversion import Adjust, Split

SMALLEST = 8
"""Levels of the pyramid are halved down to this height."""


@dataclass(frozen=True)
class NoisePrior:
    """Gradient steps that make a predicted noise map less correlated and of unit variance.

    Attributes:
        auto_corr, kl: weights lambda of the two terms.
        rounds: how often both are taken. rolls: steps of the first term in each round.
        seed: of the generator of the random shifts, so that an inversion is a function of picture and text.
    """

    auto_corr: float = 20.0
    kl: float = 20.0
    rounds: int = 5
    rolls: int = 5
    seed: int = 0

    def key(self) -> dict[str, Any]:
        """What a cached inversion depends on."""
        return asdict(self)

    def adjustment(self) -> Adjust:
        """`apply` for the outputs of one inversion, with a generator of its own."""
        generator = torch.Generator().manual_seed(self.seed)
        return lambda output, split, _level: self.apply(output, split, generator)

    def apply(self, output: Tensor, split: Split, generator: torch.Generator) -> Tensor:
        """The model output (1, C, h, w) after the steps, which are taken on it and measured on its noise."""

        def slope(energy: Any) -> Tensor:
            with torch.enable_grad():
                variable = output.detach().requires_grad_(True)
                noise = split(variable)[1]
                return torch.autograd.grad(energy(noise.float()), variable)[0]

        for _ in range(self.rounds):
            for _ in range(self.rolls if self.auto_corr > 0 else 0):
                output = output - self.auto_corr / self.rolls * slope(lambda e: auto_correlation(e, generator))
            if self.kl > 0:
                output = output - self.kl * slope(divergence)
        return output.detach()


def auto_correlation(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Sum over channels and pyramid levels of the squared mean product with a copy shifted down, and one shifted right.

    Args:
        noise: (B, C, h, w). generator: draws one shift, 0 to h / 2, a channel and level.
    """
    levels = list(pyramid(noise))
    shape = (*noise.shape[:2], len(levels))
    limits = [level.shape[2] // 2 for level in levels] * (shape[0] * shape[1])
    drawn = [int(torch.randint(limit, (1,), generator=generator)) for limit in limits]
    shifts = torch.tensor(drawn, device=noise.device).view(shape)
    total = noise.new_zeros(())
    for i, level in enumerate(levels):
        for dim in (2, 3):
            total = total + (level * shifted(level, shifts[..., i], dim)).mean((2, 3)).square().sum()
    return total


def pyramid(noise: Tensor) -> Iterator[Tensor]:
    """The map and its halvings by average pooling, down to a height of 8."""
    yield noise
    while noise.shape[2] > SMALLEST:
        noise = nn.functional.avg_pool2d(noise, 2)
        yield noise


def shifted(maps: Tensor, shifts: Tensor, dim: int) -> Tensor:
    """Each channel of maps (B, C, h, w) rolled along `dim`, 2 or 3, by its own of the shifts (B, C)."""
    size = maps.shape[dim]
    places = (torch.arange(size, device=maps.device) - shifts[..., None]) % size
    index = places[..., None] if dim == 2 else places[..., None, :]
    return maps.gather(dim, index.expand_as(maps))


def divergence(noise: Tensor) -> Tensor:
    """Twice the Kullback-Leibler divergence of N(mean, var) of all entries from N(0, 1)."""
    mean, variance = noise.mean(), noise.var()
    return variance + mean.square() - 1 - torch.log(variance + 1e-7)
