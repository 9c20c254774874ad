"""Random crops, flips, rotations, stretches and colours of a batch; every draw comes from the generator given."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional


def crop_flip(pictures: Tensor, size: tuple[int, int], flip: bool, rng: Generator) -> Tensor:
    """Cut (N, C, H, W) to `size` = (height, width) at a place of each picture's own, and mirror half of them."""
    n, _, height, width = pictures.shape
    tops = torch.randint(height - size[0] + 1, (n,), generator=rng).tolist()
    lefts = torch.randint(width - size[1] + 1, (n,), generator=rng).tolist()
    mirrored = torch.rand(n, generator=rng) < 0.5
    corners = zip(pictures, tops, lefts, strict=True)
    cut = torch.stack([p[:, top : top + size[0], left : left + size[1]] for p, top, left in corners])
    return torch.where(mirrored[:, None, None, None], cut.flip(3), cut) if flip else cut


def recolour(pictures: Tensor, amount: float, rng: Generator) -> Tensor:
    """Multiply brightness, contrast and saturation of each of (N, C, H, W) in [-1, 1] by 1 - amount to 1 + amount.

    Grey has no saturation, and transparency, a fourth channel, stays.
    """
    if pictures.shape[1] == 4:
        return torch.cat([recolour(pictures[:, :3], amount, rng), pictures[:, 3:]], 1)
    brightness, contrast, saturation = 1 + (2 * torch.rand(3, len(pictures), 1, 1, 1, generator=rng) - 1) * amount
    x = (pictures + 1) / 2 * brightness
    x = (x - x.mean((1, 2, 3), keepdim=True)) * contrast + x.mean((1, 2, 3), keepdim=True)
    if x.shape[1] == 1:
        return x.clamp(0, 1) * 2 - 1
    gray = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return (((x - gray) * saturation + gray).clamp(0, 1)) * 2 - 1


def distort(pictures: Tensor, degrees: float, stretch: float, rng: Generator) -> Tensor:
    """Turn each of (N, C, H, W) by up to `degrees` and stretch each axis by up to the share `stretch`; edges repeat."""
    n, _, height, width = pictures.shape
    angle = (2 * torch.rand(n, generator=rng) - 1) * math.radians(degrees)
    scale = 1 + (2 * torch.rand(n, 2, generator=rng) - 1) * stretch
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros(n)
    # the grid's unit is half a side, so that turning a picture that is not square needs the ratio of its sides
    ratio = height / width
    rows = [
        torch.stack([cos / scale[:, 0], -sin * ratio / scale[:, 0], zero], 1),
        torch.stack([sin / ratio / scale[:, 1], cos / scale[:, 1], zero], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), [n, 1, height, width], align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
