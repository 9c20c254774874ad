"""Opened pictures as RGB, grey, grey of 16 bits or with transparency: what a viewer shows of them."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gan_baselines.config import Form


def _deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _to_grey(image: Image.Image) -> Image.Image:
    return _to_rgb(image).convert("L")


def _to_grey16(image: Image.Image) -> Image.Image:
    if _deep(image):
        return Image.fromarray((_by_range(image) * 257).astype(np.float32))
    return Image.fromarray(np.asarray(_to_rgb(image).convert("F")) * np.float32(257))


def _to_rgba(image: Image.Image) -> Image.Image:
    colours = _in_srgb(image.convert("RGBA") if image.has_transparency_data else image) if not _deep(image) else None
    found = (_to_rgb(image) if colours is None else colours).convert("RGBA")
    if image.has_transparency_data:
        found.putalpha((image.convert("LA") if image.mode == "La" else image).convert("RGBA").getchannel("A"))
    found.info.clear()
    return found


def _to_rgb(image: Image.Image) -> Image.Image:
    if _deep(image):
        return _to_8bit(image).convert("RGB")
    alpha = None
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = image.getchannel("A")
    colours = _in_srgb(image)
    if alpha is not None:
        colours = Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)
    colours.info.clear()  # a profile left here would be written into what is made of it, and applied twice
    return colours


def _in_srgb(image: Image.Image) -> Image.Image:
    """RGB by the picture's own profile, where it has a usable one."""
    profile = image.info.get("icc_profile")
    source = image.convert("RGB") if image.mode in ("RGBA", "P", "RGBX") else image
    if profile and source.mode in ("RGB", "L", "CMYK", "LAB"):
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            turned = ImageCms.profileToProfile(source, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            turned = None  # damaged, or of other channels than the picture: viewers pass over it too
        if turned is not None:
            return turned
    return source.convert("RGB")


def _to_8bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.rint(_by_range(image)).astype(np.uint8))


def _by_range(image: Image.Image) -> NDArray[np.float64]:
    """From 0 to 255: 16 bits by their range, floats of [0, 1] by theirs, anything else by its own extent."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        values = values * (255 / 65535)
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    return values


TURNED: dict[Form, Callable[[Image.Image], Image.Image]] = {
    "rgb": _to_rgb, "grey": _to_grey, "grey16": _to_grey16, "rgba": _to_rgba,
}  # fmt: skip
"""By form: modes RGB, L, F from 0 to 65535, RGBA."""
