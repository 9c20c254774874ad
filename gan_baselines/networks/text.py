"""Sentences as distributions of latent numbers, and discriminators that know the sentence (arXiv 1612.03242)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Norm
from gan_baselines.networks.discriminators import DcganDiscriminator, Judgement
from gan_baselines.networks.encoders import Gaussian
from gan_baselines.networks.features import CodeDecoder
from gan_baselines.networks.generators import MAX_WIDENING, ResidualBlock, with_planes
from gan_baselines.networks.norms import norm_layer

COARSE = 4
_BATCH = Norm(kind="batch")


class TextCondition(nn.Module):
    """The mean of learned word vectors, then mean and log variance of the condition (section 3.2).

    Where the papers put a frozen recurrent encoder of characters; a small vocabulary needs none.
    """

    def __init__(self, words: int, text: int, numbers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words + 1, text, padding_idx=0)
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(text, 2 * numbers))

    def forward(self, words: Tensor) -> Gaussian:
        """Word numbers (N, length), 0 where a sentence has ended, to a distribution."""
        known = (words > 0).unsqueeze(-1)
        mean = (self.words(words) * known).sum(1) / known.sum(1).clamp_min(1)
        return Gaussian(*self.last(mean).chunk(2, 1))


class TextGenerator(nn.Module):
    """Stage I: noise and condition to a 4x4 map, doubled by nearest resizes and 3x3 convolutions."""

    def __init__(self, size: int, numbers: int, width: int) -> None:
        super().__init__()
        doublings = (size // COARSE).bit_length() - 1
        self.into = 2 * width * min(2 ** (doublings - 1), MAX_WIDENING)
        self.first = nn.Sequential(
            nn.Linear(numbers, self.into * COARSE**2, bias=False), nn.Unflatten(1, (self.into, COARSE, COARSE))
        )
        self.norm = nn.Sequential(nn.BatchNorm2d(self.into), nn.ReLU(inplace=True))
        self.decoder = CodeDecoder(self.into, doublings, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """(N, numbers) to (N, 3, size, size) in [-1, 1]."""
        return self.decoder(self.norm(self.first(numbers)))


class TextRefiner(nn.Module):
    """Stage II: a picture down to `coarse` px, the condition joined, residual blocks, up to `size`."""

    def __init__(self, first_size: int, size: int, numbers: int, width: int, coarse: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        into = width
        for _ in range((first_size // coarse).bit_length() - 1):
            layers += [nn.Conv2d(into, 2 * into, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * into), nn.ReLU()]
            into *= 2
        self.down = nn.Sequential(*layers)
        joined = [nn.Conv2d(into + numbers, into, 3, padding=1, bias=False), nn.BatchNorm2d(into), nn.ReLU()]
        inner = [ResidualBlock(into, _BATCH, "zero", False) for _ in range(blocks)]
        doublings = (size // coarse).bit_length() - 1
        self.up = nn.Sequential(*joined, *inner, CodeDecoder(into, doublings, width))

    def forward(self, picture: Tensor, condition: Tensor) -> Tensor:
        """(N, 3, first_size, first_size) and (N, numbers) to (N, 3, size, size) in [-1, 1]."""
        return self.up(with_planes(self.down(picture), condition))


class TextDiscriminator(nn.Module):
    """DCGAN's convolutions down to 4x4, the condition joined there; with `plain` also logits that do not see it."""

    def __init__(self, size: int, numbers: int, width: int, plain: bool) -> None:
        super().__init__()
        trunk = DcganDiscriminator(size, width)
        self.stages, into = trunk.stages[:-1], trunk.widest
        self.alone = trunk.stages[-1] if plain else None
        first = nn.Conv2d(into + numbers, into, 3, padding=1, bias=False)
        self.joint = nn.Sequential(first, norm_layer(_BATCH, into), nn.LeakyReLU(0.2), nn.Conv2d(into, 1, COARSE))

    def forward(self, picture: Tensor, condition: Tensor) -> Judgement:
        """Logits under the condition (N, numbers), and those of the picture alone where there are any."""
        features, h = [], picture
        for stage in self.stages:
            h = stage(h)
            features.append(h)
        logits = [self.joint(with_planes(h, condition))]
        return Judgement(features, [*logits, *([] if self.alone is None else [self.alone(h)])])


def other_sentences(words: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (N, length) the place of the next other sentence in the batch, and whether there is one."""
    count = len(words)
    differs = (words[:, None] != words[None]).any(2)
    steps = (torch.arange(count, device=words.device)[None] - torch.arange(count, device=words.device)[:, None]) % count
    return torch.where(differs, steps, count).argmin(1), differs.any(1)


def masked_bce(logits: Tensor, target: float, kept: Tensor | None = None) -> Tensor:
    """Mean binary cross entropy of the samples `kept` (N,), by default all; zero where there is none."""
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits.float(), target), reduction="none"
    )
    kept = torch.ones(len(each), device=each.device) if kept is None else kept
    return (each.flatten(1).mean(1) * kept).sum() / kept.sum().clamp_min(1)
