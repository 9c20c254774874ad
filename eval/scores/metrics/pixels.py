"""Pixel and perceptual distances, of the whole frame or of the background outside a mask."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from eval.scores.metrics.base import MetricResult, check_mask, check_pair, missing_weights
from freectl.errors import FreectlError

Convention = Literal["masked", "pie"]
"""masked: mean over the kept pixels. pie: both pictures times the mask, mean over the frame (PIE-Bench's code)."""
Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Pictures (B, 3, H, W), -1 to 1, twice -> distances (B,)."""


def mse(one: Tensor, other: Tensor, keep: Tensor | None = None, convention: Convention = "masked") -> MetricResult:
    """Mean squared error of pixels in 0 to 1.

    Args:
        one, other: (B, 3, H, W), 0 to 1.
        keep: (B, 1, H, W) of 0 and 1, 1 where pixels count; NaN where it is empty.
    """
    return MetricResult(_name("MSE", keep, convention), _squares(one, other, keep, convention))


def psnr(one: Tensor, other: Tensor, keep: Tensor | None = None, convention: Convention = "masked") -> MetricResult:
    """Peak signal-to-noise ratio in dB, peak 1; infinite for equal pictures. See `mse` for the arguments."""
    return MetricResult(_name("PSNR", keep, convention), -10 * _squares(one, other, keep, convention).log10())


def ssim(one: Tensor, other: Tensor, keep: Tensor | None = None, convention: Convention = "masked") -> MetricResult:
    """Structural similarity, 11x11 Gaussian window of sigma 1.5, range 1 (Wang et al. 2004); 1 for equal pictures.

    In single precision, as in the papers' code, equal pictures with flat regions may fall short of 1 by 3e-4; double
    precision is used where the pictures are double, and takes twelve times as long.
    With a mask: mean of the similarity map over the kept pixels, or of pictures times the mask ("pie").

    Raises:
        ValueError: a side below 11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = check_pair(one, other)
    if min(one.shape[-2:]) < 11:
        raise ValueError(f"pictures of {one.shape[-1]}x{one.shape[-2]}; expected sides of 11 or more")
    inside = None if keep is None else check_mask(keep, one)
    if inside is not None and convention == "pie":
        one, other = one * inside, other * inside
    _, maps = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none", return_full_image=True)
    if inside is None or convention == "pie":
        # the window does not fit at the border: the score leaves five pixels out, as the paper's code does
        values = maps[..., 5:-5, 5:-5].mean((1, 2, 3))
        values = values if inside is None else torch.where(inside.any(-1).any(-1).any(-1), values, torch.nan)
    else:
        values = (maps * inside).sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3)))
    return MetricResult(_name("SSIM", keep, convention), values)


def lpips(
    one: Tensor,
    other: Tensor,
    network: Perceptual,
    network_name: str,
    keep: Tensor | None = None,
) -> MetricResult:
    """Learned perceptual distance (Zhang et al. 2018); 0 for equal pictures.

    A mask multiplies both pictures, as in PIE-Bench: a distance of deep features has no masked mean.
    """
    one, other = check_pair(one, other)
    convention: Convention = "pie"
    values = None
    if keep is not None:
        inside = check_mask(keep, one)
        one, other = one * inside, other * inside
        values = torch.where(inside.any(-1).any(-1).any(-1), 1.0, torch.nan)
    with torch.no_grad():
        found = network(one.float() * 2 - 1, other.float() * 2 - 1)
    return MetricResult(_name("LPIPS", keep, convention), found if values is None else found * values, network_name)


def load_lpips(net: Literal["alex", "vgg", "squeeze"] = "alex") -> tuple[Perceptual, str]:
    """LPIPS of torchmetrics and its name: "alex" in most papers, "squeeze" in PIE-Bench.

    Raises:
        FreectlError: the backbone's weights are missing; the message names the command that fetches them.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    try:
        model = _LPIPS(pretrained=True, net=net).eval()
    except (OSError, RuntimeError) as error:
        name = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[net]
        fetch = f"python -c \"import torchvision; torchvision.models.{name}(weights='DEFAULT')\""
        raise FreectlError(missing_weights(name, error, fetch)) from None
    return (lambda a, b: model(a, b).flatten()), f"torchmetrics LPIPS {net}"


def _squares(one: Tensor, other: Tensor, keep: Tensor | None, convention: Convention) -> Tensor:
    one, other = check_pair(one, other)
    squares = (one - other).square().mean(1, keepdim=True)
    if keep is None:
        return squares.mean((1, 2, 3))
    inside = check_mask(keep, one)
    total, count = (squares * inside).sum((1, 2, 3)), inside.sum((1, 2, 3))
    size = count if convention == "masked" else torch.full_like(count, squares[0].numel())
    return torch.where(count > 0, total / size.clamp_min(1), torch.nan)


def _name(metric: str, keep: Tensor | None, convention: Convention) -> str:
    return metric if keep is None else f"{metric} of the background ({convention})"
