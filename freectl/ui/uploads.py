"""Pictures that come from a browser: bounded, read like any other input, and called by the name they had there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from freectl.errors import InputError
from freectl.files import pictures
from freectl.files.opening import FORMATS
from freectl.files.pictures import LoadedImage

MAX_BYTES = 30_000_000
MAX_PIXELS = 40_000_000
PAINTED = 640
"""Longer side in pixels of the copy that masks are painted on, whatever the picture's: brushes are of its pixels."""


def read(path: str | None, option: str = "--image") -> LoadedImage:
    """An uploaded picture.

    Raises:
        InputError: none, too large, or what `freectl.files.pictures.load_image` refuses.
    """
    check(path, option)
    with named(path):
        return replace(pictures.load_image(str(path), option), source=Path(str(path)).name)


@contextmanager
def named(*paths: Any) -> Iterator[None]:
    """Errors about uploads call them by their names: where a server keeps them is nobody's business."""
    try:
        yield
    except InputError as error:
        found = error.found
        for path in filter(None, paths):
            found = found.replace(str(path), Path(str(path)).name)
        raise InputError(error.option, found, error.allowed) from error


def check(path: str | None, option: str) -> None:
    """Bounds of an upload, from its header.

    Raises:
        InputError: none, too many bytes or too many pixels; the place it was written to is not told.
    """
    if not path:
        raise InputError(option, "no picture", "an uploaded picture")
    name, size = Path(path).name, Path(path).stat().st_size
    if size > MAX_BYTES:
        raise InputError(option, f"{name}, {size / 1e6:.0f} MB", f"at most {MAX_BYTES // 1_000_000} MB")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
    except Exception as error:  # decoders raise whatever the damaged bytes lead them to
        raise InputError(option, f"{name}, not a picture or a damaged one", "PNG, JPEG, WebP, ...") from error
    if width * height > MAX_PIXELS:
        megapixels = f"{name}, {width}x{height} px = {width * height / 1e6:.0f} megapixels"
        raise InputError(option, megapixels, f"at most {MAX_PIXELS // 1_000_000} megapixels")


def canvas(path: str | None) -> Image.Image | None:
    """What masks are painted on: the picture, `PAINTED` px long; None where there is none that can be read."""
    try:
        image = read(path).image
    except InputError:
        return None
    scale = PAINTED / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def painted(value: dict[str, Any] | None, path: str | None) -> Image.Image:
    """What was painted, as an "L" mask of the picture's size: 255 where there is paint, else 0.

    Args:
        value: of the painter; its layers are RGBA. path: the picture.

    Raises:
        InputError: no picture, or nothing is painted.
    """
    size = read(path).image.size
    layers = [layer for layer in (value or {}).get("layers") or [] if layer is not None]
    mask = Image.new("L", size, 0)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A").resize(size, Image.Resampling.BILINEAR)
        mask.paste(255, (0, 0), alpha.point(lambda share: 255 if share >= 128 else 0))
    if mask.getbbox() is None:
        raise InputError("--mask", "nothing painted", "paint on the picture first")
    return mask
