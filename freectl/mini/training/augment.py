"""Distortions of pictures (-1 to 1), so that what learns from clean scenes copes with generated ones."""

import torch
from torch import Tensor
from torch.nn import functional


def distort(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Smooth random displacement of up to about three pixels, mostly below one, the same for picture and mask."""
    batch = pictures.shape[0]
    strength = torch.rand(batch, 1, 1, 1, generator=generator).square() * 0.1
    coarse = (torch.rand(batch, 2, 4, 4, generator=generator) - 0.5) * 2 * strength
    offset = functional.interpolate(coarse, pictures.shape[-2:], mode="bicubic", align_corners=True)
    identity = functional.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), list(pictures.shape), align_corners=False)
    grid = identity + offset.permute(0, 2, 3, 1)
    options = {"padding_mode": "border", "align_corners": False}
    return functional.grid_sample(pictures, grid, **options), functional.grid_sample(masks, grid, **options)  # type: ignore[arg-type]


def degrade(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Random blur by resampling, contrast, brightness and noise, a different strength for each picture."""
    batch = pictures.shape[0]
    if torch.rand((), generator=generator) < 0.5:
        side = int(torch.randint(22, 60, (), generator=generator)) * pictures.shape[-1] // 64
        small = functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        blurred = functional.interpolate(small, pictures.shape[-2:], mode="bicubic")
        share = torch.rand(batch, 1, 1, 1, generator=generator)
        pictures = pictures + share * (blurred - pictures)
    gain = 1 + (torch.rand(batch, 1, 1, 1, generator=generator) - 0.5) * 0.3
    shift = (torch.rand(batch, 3, 1, 1, generator=generator) - 0.5) * 0.16
    noise = torch.randn(pictures.shape, generator=generator) * torch.rand(batch, 1, 1, 1, generator=generator) * 0.2
    return (pictures * gain + shift + noise).clamp(-1, 1)
