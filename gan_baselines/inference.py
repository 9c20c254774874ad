"""Networks at work: modes that leave no trace, translation of pictures of any size, sampling."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import LEAST_SIDE
from gan_baselines.errors import GanError

_DROPOUTS = (nn.Dropout, nn.Dropout2d)


@contextmanager
def presenting(*networks: nn.Module, dropout: bool = True, seed: int = 0) -> Iterator[None]:
    """Run networks as Pix2Pix is tested: batch norm with the statistics of its input, dropout on or off.

    Inside, random numbers start from `seed`; afterwards modes, running statistics and random states are as before.
    """
    parts = [part for network in networks for part in network.modules()]
    modes = [part.training for part in parts]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    try:
        for part in parts:
            part.training = isinstance(part, nn.BatchNorm2d) or (dropout and isinstance(part, _DROPOUTS))
        for norm in norms:
            norm.momentum = 0.0
        with torch.random.fork_rng(devices=_cuda_devices(networks)):
            torch.manual_seed(seed)
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


@torch.inference_mode()
def translate(generator: nn.Module, picture: Tensor, multiple: int, *, dropout: bool = True, seed: int = 0,
              style: Tensor | None = None) -> Tensor:  # fmt: skip
    """Translate one picture (C, H, W) to one of the same size in [-1, 1].

    Sides that `multiple` does not divide, or below 8 px, are padded by their edges and cut back. One picture at a time,
    so that its translation does not depend on what else is translated; equal seeds give equal pictures. Where the
    network has several answers, the seed or the `style` (1, numbers) chooses.

    Raises:
        GanError: the result is not finite.
    """
    _, height, width = picture.shape
    whole = padded(picture, multiple)
    with presenting(generator, dropout=dropout, seed=seed):
        made = generator(whole) if style is None else generator(whole, style)
        return checked(made[0, :, :height, :width])


def padded(picture: Tensor, multiple: int) -> Tensor:
    """A picture (C, H, W) as a batch of one whose sides `multiple` divides, from 8 px on: its edges are repeated."""
    below, right = (ceil(max(side, LEAST_SIDE) / multiple) * multiple - side for side in picture.shape[-2:])
    return functional.pad(picture[None], (0, right, 0, below), mode="replicate")


@torch.inference_mode()
def sample(
    generator: nn.Module, count: int, seed: int, batch: int = 64, *, condition: Tensor | None = None, line: bool = False
) -> Iterator[Tensor]:
    """Yield `count` pictures (3, S, S) in [-1, 1] from noise; picture i depends on seed + i alone.

    Batch norm uses its running statistics here, so that a picture does not depend on its neighbours.

    Args:
        condition: (numbers,) for all pictures or (count, numbers), for networks that take one.
        line: the noise moves on a line from that of `seed` to that of seed + 1 instead.

    Raises:
        GanError: the result is not finite.
    """
    device = next(generator.parameters()).device
    was = generator.training
    generator.eval()
    if condition is not None and condition.dim() == 1:
        condition = condition.expand(count, -1)
    noise = _noise(int(generator.noise), count, seed, line)  # type: ignore[arg-type]
    try:
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            extra = () if condition is None else (condition[part].to(device),)
            yield from checked(generator(noise[part].to(device), *extra))
    finally:
        generator.train(was)


def _noise(numbers: int, count: int, seed: int, line: bool) -> Tensor:
    ends = [torch.randn(numbers, generator=torch.Generator().manual_seed(s))
            for s in range(seed, seed + (2 if line else count))]  # fmt: skip
    if not line:
        return torch.stack(ends)
    share = torch.linspace(0, 1, count)[:, None]
    return (1 - share) * ends[0] + share * ends[1]


def checked(pictures: Tensor) -> Tensor:
    """Return `pictures`.

    Raises:
        GanError: numbers that are infinite or none: they would become a black picture.
    """
    if not torch.isfinite(pictures).all():
        raise GanError("the generator gave numbers that are infinite or none: a training that diverged, or an input "
                       "far outside of what it was trained on")  # fmt: skip
    return pictures


def _cuda_devices(networks: tuple[nn.Module, ...]) -> list[int]:
    devices = {weight.device for network in networks for weight in network.parameters()}
    return [device.index or 0 for device in devices if device.type == "cuda"]
