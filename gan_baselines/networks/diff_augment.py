"""Augmentation of everything a discriminator sees, with gradient to the generator (arXiv 2006.10738, section 3)."""

from typing import Any

import torch
from torch import Tensor, nn

SHIFT, HOLE = 1 / 8, 1 / 2  # shares of the side, as published


def recoloured(x: Tensor) -> Tensor:
    """Brightness by up to a half, saturation by 0 to 2, contrast by 0.5 to 1.5, drawn for each of (N, C, H, W)."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device)
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = (x - gray) * (2 * saturation) + gray
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def shifted(x: Tensor) -> Tensor:
    """Each of (N, C, H, W) moved by up to an eighth of its sides; zeros come in."""
    places = [_places(len(x), side, x.device) for side in x.shape[-2:]]
    known = [(place >= 0) & (place < side) for place, side in zip(places, x.shape[-2:], strict=True)]
    rows, columns = (place.clamp(0, side - 1) for place, side in zip(places, x.shape[-2:], strict=True))
    index = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.movedim(1, 3)[index, rows[:, :, None], columns[:, None]].movedim(3, 1)
    return moved * (known[0][:, :, None] & known[1][:, None])[:, None]


def holed(x: Tensor) -> Tensor:
    """A square of half the sides of each of (N, C, H, W) set to zero, its middle drawn evenly over the picture."""
    inside = []
    for side in x.shape[-2:]:
        middle = torch.randint(0, side + 1, (len(x), 1), device=x.device)
        offset = torch.arange(side, device=x.device)[None] - middle + side * HOLE / 2
        inside.append((offset >= 0) & (offset < side * HOLE))
    return x * ~(inside[0][:, :, None] & inside[1][:, None])[:, None]


def augmented(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Hook of a discriminator: the picture with other colours, and with its condition (where that is a map) moved."""
    picture, *more = arguments
    seen = recoloured(picture)
    maps = [part for part in more if part.dim() == 4]
    moved = holed(shifted(torch.cat([seen, *maps], 1)))
    parts = list(moved.split([part.shape[1] for part in (seen, *maps)], 1))
    rest = [parts.pop(1) if part.dim() == 4 else part for part in more]
    return (parts[0], *rest)


def _places(count: int, side: int, device: torch.device) -> Tensor:
    most = int(side * SHIFT + 0.5)
    shift = torch.randint(-most, most + 1, (count, 1), device=device)
    return torch.arange(side, device=device)[None] + shift
