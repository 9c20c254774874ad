"""Pictures given as arrays and tensors, in the layouts and ranges that diffusers takes."""

import sys
from typing import Any

import numpy as np
from PIL import Image

from freectl.errors import InputError

ALLOWED = (
    "arrays (H, W, C) or (B, H, W, C), tensors (C, H, W) or (B, C, H, W): uint8, or floats of 0 to 1 or -1 to 1, "
    "C = 1 or 3, arrays also 4"
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a torch tensor."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def pictures_in(value: Any, option: str) -> list[Image.Image]:
    """The pictures in an array or a tensor: one, or one an entry of the batch axis.

    Floats are read as diffusers' `VaeImageProcessor` does: as -1 to 1 if one of them is negative, else as 0 to 1.

    Raises:
        InputError: another shape, type or range, or values that are not numbers.
    """
    tensor = _is_tensor(value)
    array = _as_numpy(value)
    if tensor and array.ndim >= 3:
        array = np.moveaxis(array, -3, -1)
    if array.ndim == 2:
        array = array[..., None]
    shape = tuple(value.shape)
    if array.ndim not in (3, 4) or 0 in shape or array.shape[-1] not in ((1, 3) if tensor else _MODES):
        kind = "a tensor" if tensor else "an array"
        raise InputError(option, f"{kind} of the shape {shape}", ALLOWED)
    values = _eight_bits(array, str(value.dtype), option)
    mode = _MODES[values.shape[-1]]
    batch = values if values.ndim == 4 else values[None]
    return [Image.fromarray(np.ascontiguousarray(one[..., 0] if mode == "L" else one), mode) for one in batch]


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # no tensor exists before torch is imported
    return torch is not None and isinstance(value, torch.Tensor)


def _as_numpy(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16


def _eight_bits(array: np.ndarray, dtype: str, option: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if array.dtype.kind != "f":
        raise InputError(option, f"values of the type {dtype}", ALLOWED)
    if not np.isfinite(array).all():
        raise InputError(option, "values that are not numbers", ALLOWED)
    low, high = float(array.min()), float(array.max())
    if low < -1 or high > 1:
        raise InputError(option, f"floats from {low:g} to {high:g}", ALLOWED)
    scaled = array.astype(np.float64) * 255 if low >= 0 else (array.astype(np.float64) + 1) * 127.5
    return np.rint(scaled).astype(np.uint8)
