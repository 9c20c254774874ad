"""What a person sees of a decoded picture in a viewer: orientation, colour profile, depth and transparency."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageColor
from PIL.Image import Transpose

from freectl.errors import InputError

REDUCED_ABOVE = 16_000_000
"""Pixels above which a picture is halved while it is read where the caller allows it: 4 megapixels or more remain."""
STRIP = 1 << 21
"""Pixels that are converted together, so that no further copy of a large picture is made."""
_NEARLY = 2
"""Profiles that change no 8-bit value by more than this are sRGB written in other words."""
_DEEP = ("I", "F")
_TURNS = dict(
    zip(
        range(2, 9),
        (
            Transpose.FLIP_LEFT_RIGHT,
            Transpose.ROTATE_180,
            Transpose.FLIP_TOP_BOTTOM,
            Transpose.TRANSPOSE,
            Transpose.ROTATE_270,
            Transpose.TRANSVERSE,
            Transpose.ROTATE_90,
        ),
        strict=True,
    )
)
"""What EXIF's orientations 2 to 8 ask for."""
_ON_ITS_SIDE = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)
Convert = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Seen:
    """`image` RGB, upright; `alpha` "L" of its size, None where nothing is hidden; whether it lay on its `side`."""

    image: Image.Image
    alpha: Image.Image | None
    side: bool


def check_background(colour: str, option: str = "--background") -> str:
    """Return a colour's name or #rrggbb as it is.

    Raises:
        InputError: no such colour, or one that is itself transparent.
    """
    try:
        known = len(ImageColor.getrgb(colour)) == 3
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise InputError(option, repr(colour), "a colour such as white, black or #f0e0d0")
    return colour


def halvings(size: tuple[int, int]) -> int:
    """By which power of two a picture of `size` px is reduced while it is read: 1, 2 or 4."""
    factor = 1
    while size[0] * size[1] > REDUCED_ABOVE * factor * factor:
        factor *= 2
    return factor


def seen(picture: Image.Image, label: str, notes: list[str], background: str, factor: int = 1) -> Seen:
    """A decoded picture as 8-bit sRGB on `background`, reduced by the integer `factor`.

    Works strip by strip: beside `picture` only the result is held.

    Args:
        label: option and name, for notes. notes: what a user should know of is added.
    """
    deepened = _depth(picture, label, notes)
    coloured = _profile(picture, label, notes)
    hides = _hides(picture)
    if hides:
        notes.append(f"{label} is transparent in places: composited on {background}")

    def convert(strip: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        strip = deepened(strip)
        if not hides:
            return coloured(strip), None
        rgba = _rgba(strip)
        alpha = rgba.getchannel("A")
        canvas = Image.new("RGB", strip.size, background)
        canvas.paste(coloured(strip if strip.mode in ("RGBA", "LA") else rgba), (0, 0), alpha)
        return canvas, alpha

    size = (-(-picture.width // factor), -(-picture.height // factor))
    image, mask = Image.new("RGB", size), Image.new("L", size) if hides else None
    for top, part in _strips(picture, factor):
        strip, alpha = convert(part)
        image.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
        if mask is not None and alpha is not None:
            mask.paste(alpha.reduce(factor) if factor > 1 else alpha, (0, top // factor))
    turn = _TURNS.get(picture.getexif().get(0x0112, 1))
    if turn is not None:
        image, mask = image.transpose(turn), None if mask is None else mask.transpose(turn)
    return Seen(image, mask, turn in _ON_ITS_SIDE)


def _strips(picture: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Parts of whole rows, a multiple of `factor` but for the last one, and the row each starts at."""
    rows = max(1, STRIP // picture.width // factor) * factor
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _rgba(strip: Image.Image) -> Image.Image:
    return (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")


def _hides(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    return any(_rgba(strip).getchannel("A").getextrema() != (255, 255) for _, strip in _strips(picture))


def _profile(picture: Image.Image, label: str, notes: list[str]) -> Convert:
    """To RGB by the picture's own colour profile, if it has one that differs from sRGB."""
    profile = picture.info.get("icc_profile")
    grey = picture.mode in _DEEP or picture.mode.startswith("I;16")
    mode = "L" if grey else {"LA": "L", "1": "L"}.get(picture.mode, picture.mode)
    mode = mode if mode in ("L", "CMYK", "LAB") else "RGB"
    if not profile:
        return lambda strip: strip.convert("RGB")
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append(f"{label} has a colour profile that is damaged or of another kind: ignored")
        return lambda strip: strip.convert("RGB")
    if mode == "RGB" and _is_srgb(transform):
        return lambda strip: strip.convert("RGB")
    return lambda strip: ImageCms.applyTransform(strip.convert(mode), transform)  # type: ignore[return-value]


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 9, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    there = ImageCms.applyTransform(Image.fromarray(cube), transform)
    return int(np.abs(np.asarray(there).astype(int) - cube).max()) <= _NEARLY


def _depth(picture: Image.Image, label: str, notes: list[str]) -> Convert:
    """Deep pictures to 8 bits: 16-bit ones by their whole range, floats by 0..1 or 0..255, others by their own."""
    if picture.mode.startswith("I;16"):
        return lambda strip: _eight(np.asarray(strip, dtype=np.float32) * (255 / 65535))
    if picture.mode not in _DEEP:
        return lambda strip: strip
    low, high, finite = _range(picture)
    if not finite:
        notes.append(f"{label} holds values that are not numbers: read as 0")
    scale, shift = 1.0, 0.0
    if picture.mode == "I" and low >= 0 and 255 < high <= 65535:
        scale = 255 / 65535
    elif picture.mode == "F" and low >= 0 and high <= 1:
        scale = 255.0
    elif low < 0 or high > 255:
        notes.append(f"{label} holds values from {low:g} to {high:g}: scaled to 0..255")
        scale, shift = 255 / max(high - low, 1e-30), low

    def convert(strip: Image.Image) -> Image.Image:
        values = np.array(strip, dtype=np.float64)
        values[~np.isfinite(values)] = 0
        return _eight((values - shift) * scale)

    return convert


def _range(picture: Image.Image) -> tuple[float, float, bool]:
    """Least and largest value, those that are not numbers read as 0; and whether there are none of these."""
    low, high, finite = np.inf, -np.inf, True
    for _, strip in _strips(picture):
        values = np.array(strip, dtype=np.float64)
        known = np.isfinite(values)
        finite &= bool(known.all())
        values[~known] = 0
        low, high = min(low, values.min()), max(high, values.max())
    return float(low), float(high), finite


def _eight(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
