"""What every metric returns, and the checks of its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MetricResult:
    """Values of one metric.

    Attributes:
        name: of the metric, with its convention where several exist.
        values: one a picture (B,), or one of the whole set (1,); NaN where the metric has no meaning.
        network: the network that was used, or "none".
        note: what a reader must know to compare the number.
    """

    name: str
    values: Tensor
    network: str = "none"
    note: str = ""

    @property
    def mean(self) -> float:
        """Mean of the values that have a meaning; NaN if none has."""
        return float(self.values.nanmean())


def check_pictures(pictures: Tensor, name: str = "pictures") -> Tensor:
    """Pictures as fp32 (or fp64 as given), checked.

    Raises:
        ValueError: not (B, 3, H, W), not floating point, or values outside 0 to 1.
    """
    if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.shape[0] == 0:
        raise ValueError(f"{name}: shape {tuple(pictures.shape)}; expected (B, 3, H, W) with B of 1 or more")
    if not pictures.is_floating_point():
        raise ValueError(f"{name}: {pictures.dtype}; expected floating point, 0 to 1")
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ValueError(f"{name}: values from {low:.3g} to {high:.3g}; expected 0 to 1")
    return pictures if pictures.dtype == torch.float64 else pictures.float()


def check_pair(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of pictures of equal shape on one device.

    Raises:
        ValueError: they differ in shape or device, or are no pictures.
    """
    one, other = check_pictures(one), check_pictures(other, "other pictures")
    if one.shape != other.shape:
        raise ValueError(f"pictures {tuple(one.shape)} and {tuple(other.shape)}; expected equal shapes")
    if one.device != other.device:
        raise ValueError(f"pictures on {one.device} and {other.device}; expected one device")
    return one, other


def check_mask(mask: Tensor, pictures: Tensor) -> Tensor:
    """A mask (B, 1, H, W) of 0 and 1 as bool, for pictures of that size.

    Raises:
        ValueError: another shape, or values other than 0 and 1.
    """
    expected = (pictures.shape[0], 1, *pictures.shape[-2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"mask {tuple(mask.shape)}; expected {expected}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask with values other than 0 and 1")
    return mask.bool()


def check_count(texts: Sequence[str], pictures: Tensor, name: str = "texts") -> None:
    """As many texts as pictures.

    Raises:
        ValueError: another number.
    """
    if len(texts) != pictures.shape[0]:
        raise ValueError(f"{len(texts)} {name} for {pictures.shape[0]} pictures")


def missing_weights(name: str, error: Exception, command: str) -> str:
    """The message for weights that are not here: the reason in a sentence, and the command that fetches them."""
    reason = str(error).strip().splitlines()[0].partition(". ")[0] if str(error).strip() else type(error).__name__
    return f"weights of {name} are not here ({reason}); fetch them once with network: {command}"
