"""Pictures in and out: every input becomes 8-bit RGB or a one-line error; every output is whole or absent."""

import os
import sys
import textwrap
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from math import ceil, sqrt
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from freectl.errors import FreectlError, InputError
from freectl.files.record import check_output, save_image  # noqa: F401 - part of this module's interface

Size = tuple[int, int]
Labelled = list[tuple[str, Image.Image]]
Source = str | os.PathLike[str] | Image.Image

MAX_PIXELS = 100_000_000
_STILLS = "PNG JPEG WEBP AVIF HEIF GIF TIFF BMP DIB PPM JPEG2000 PSD TGA PCX ICO ICNS DDS QOI SGI"
_LIMIT = "at most 100 megapixels"
_PICTURE = "a still picture (PNG, JPEG, WebP, ...)"
_LANCZOS, _NEAREST = Image.Resampling.LANCZOS, Image.Resampling.NEAREST


def _readable() -> tuple[str, ...]:
    with suppress(ImportError, OSError):  # OSError: a shared library that it needs is missing
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _STILLS.split() if name in Image.OPEN)


FORMATS = _readable()
"""Formats that `Image.open(..., formats=FORMATS)` may take anywhere: Pillow's others start programs (EPS runs
Ghostscript), hand bytes to stubs of other packages, or are no pictures."""


@dataclass(frozen=True)
class LoadedImage:
    """A picture as the models take it: `image` RGB, `original_size` (width, height) in px after EXIF rotation."""

    image: Image.Image
    original_size: Size
    warnings: list[str]
    source: str


def load_image(source: Source | LoadedImage, option: str = "--image", background: str = "white") -> LoadedImage:
    """Read a path, "-" (bytes on standard input) or a PIL picture as 8-bit RGB; transparency lies on `background`.

    Raises:
        InputError: missing, unreadable, truncated, animated, empty or above 100 megapixels; or not a picture.
    """
    if isinstance(source, LoadedImage):  # read and checked before
        return source
    notes: list[str] = []
    name, opened = _open(source, option)
    with opened as stream, warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit here is checked from the same header, before decoding
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = stream if isinstance(stream, Image.Image) else Image.open(stream, formats=FORMATS)
            _check_header(picture, name, option)
            picture.load()
            image = _to_rgb(picture, f"{option}: {name}", notes, background)
        except FreectlError:
            raise
        except Image.DecompressionBombError as error:
            raise InputError(option, f"{name}, too large ({error})", _LIMIT) from error
        except UnidentifiedImageError as error:
            raise InputError(option, f"{name}, not a picture or a damaged one", _PICTURE) from error
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise InputError(option, f"{name}, truncated or damaged ({error})", _PICTURE) from error
    return LoadedImage(image, image.size, notes, name)


def _open(source: Source, option: str) -> tuple[str, AbstractContextManager[BinaryIO | Image.Image]]:
    if isinstance(source, Image.Image):
        return "a PIL picture", nullcontext(source)
    if not isinstance(source, str | os.PathLike):
        raise InputError(option, f"a {type(source).__name__}", 'a path, "-" or a PIL picture')
    name = os.fspath(source)
    if name == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(option, "no data on standard input", "the bytes of a picture piped in")
        name, stream = "standard input", cast(BinaryIO, BytesIO(sys.stdin.buffer.read()))
    elif os.path.isdir(name):
        raise InputError(option, f"{name}, a folder", _PICTURE)
    else:
        try:
            stream = open(name, "rb")  # noqa: SIM115 - the caller closes it
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(option, f"{name}, unreadable ({reason})", "an existing, readable picture file") from error
        if not stream.seekable():  # a pipe given by name
            stream = BytesIO(stream.read())
    if not stream.read(1):
        raise InputError(option, f"{name}, zero-sized (0 bytes)", _PICTURE)
    stream.seek(0)
    return name, stream


def _check_header(picture: Image.Image, name: str, option: str) -> None:
    # opened by the caller and not decoded yet; Pillow opens an MPO as a JPEG
    if getattr(picture, "tile", None) and picture.format not in (None, "MPO", *FORMATS):
        raise InputError(option, f"{name}, of the format {picture.format}", _PICTURE)
    width, height = picture.size
    if not (width and height):
        raise InputError(option, f"{name}, zero-sized ({width}x{height} px)", _PICTURE)
    if width * height > MAX_PIXELS:
        raise InputError(option, f"{name}, {width}x{height} px = {width * height / 1e6:.1f} megapixels", _LIMIT)
    frames = getattr(picture, "n_frames", 1)
    # the further frames of these are previews and layers of one still picture; phones write MPO as .jpg
    if frames > 1 and picture.format not in ("MPO", "PSD"):
        raise InputError(option, f"{name}, animated or paged ({frames} frames)", _PICTURE)


def _to_rgb(picture: Image.Image, label: str, notes: list[str], background: str) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _to_8bit(picture, label, notes)
    if picture.has_transparency_data:
        rgba = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append(f"{label} is transparent in places: composited on {background}")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    image = picture.convert("RGB")
    image.info.clear()  # a colour profile or EXIF left here would be written into outputs derived from it
    return image


def _to_8bit(picture: Image.Image, label: str, notes: list[str]) -> Image.Image:
    values = np.array(picture, dtype=np.float32)
    if not np.isfinite(values).all():
        notes.append(f"{label} holds values that are not numbers: read as 0")
        values[~np.isfinite(values)] = 0
    low, high = float(values.min()), float(values.max())
    if picture.mode.startswith("I;16") or (picture.mode == "I" and low >= 0 and 255 < high <= 65535):
        values *= 255 / 65535
    elif picture.mode == "F" and low >= 0 and high <= 1:
        values *= 255
    elif low < 0 or high > 255:
        notes.append(f"{label} holds values from {low:g} to {high:g}: scaled to 0..255")
        values = (values - low) * (255 / max(high - low, 1e-30))
    return Image.fromarray(np.rint(values).astype(np.uint8))


def working_size(original: Size, base: int, multiple: int = 8, *, square: bool) -> Size:
    """Return the (width, height) in px a model works at: about base^2 px, sides multiples of `multiple`.

    The aspect ratio is kept unless `square`, whose result is base x base (`fit` then pads the picture). Sizes >= 1.
    """
    shape = 1.0 if square else sqrt(original[0] / original[1])
    # when one side is at the floor the other keeps the area, not the aspect: the cost stays bounded
    width, height = (min(side, base * base / multiple) for side in (base * shape, base / shape))
    return max(1, round(width / multiple)) * multiple, max(1, round(height / multiple)) * multiple


@dataclass(frozen=True)
class Fitted:
    """A picture at a model's working size. `box` (left, top, right, bottom, px) is where it lies in `image`."""

    image: Image.Image
    original_size: Size
    box: tuple[int, int, int, int]

    def restore(self, result: Image.Image) -> Image.Image:
        """Map a result of the working size back to the input's size; the identity when the two are equal.

        Raises:
            ValueError: `result` is not of the working size.
        """
        if result.size != self.image.size:
            raise ValueError(f"result of {result.size} px for a working size of {self.image.size} px")
        return result.crop(self.box).resize(self.original_size, _LANCZOS)

    def restore_mask(self, mask: Image.Image) -> Image.Image:
        """Map a binary "L" mask of the working size to the input's size: 0 or 255."""
        return _binary(mask.crop(self.box).resize(self.original_size, _LANCZOS))

    def fit_mask(self, mask: Image.Image, padding: int = 0) -> Image.Image:
        """Map a binary "L" mask of the input's size to the working size: 0 or 255, `padding` around the input."""
        left, top, right, bottom = self.box
        canvas = Image.new("L", self.image.size, padding)
        canvas.paste(mask.resize((right - left, bottom - top), _LANCZOS), (left, top))
        return _binary(canvas)


def fit(image: Image.Image, size: Size) -> Fitted:
    """Resize `image` to `size` (width, height in px): stretched, or padded with its edge colour for a square `size`.

    A picture that already has the size is taken bit for bit.
    """
    image = image.convert("RGB")
    inner = size
    if size[0] == size[1]:
        # padding the small copy, not the input: a 50000x100 px banner would need 7 GB as a square
        inner = tuple(max(1, round(side * size[0] / max(image.size))) for side in image.size)  # type: ignore[assignment]
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = Image.new("RGB", size, edge_colour(image))
    canvas.paste(image.resize(inner, _LANCZOS), (left, top))
    return Fitted(canvas, image.size, (left, top, left + inner[0], top + inner[1]))


def _binary(mask: Image.Image) -> Image.Image:
    return mask.point(lambda value: 255 if value >= 128 else 0)


def edge_colour(image: Image.Image) -> tuple[int, ...]:
    """Median RGB colour of the outermost pixels, which padding takes."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(channel) for channel in np.median(border, axis=0))


def load_mask(
    source: Source, size: Size, option: str = "--mask", chosen: str = "white where the picture may change"
) -> Image.Image:
    """Read a mask as "L" with 0 and 255 only, at `size` = the picture's (width, height): bright is chosen.

    A mask of another size is taken when its aspect ratio is the picture's within 1 %; transparent counts as black.
    `chosen` says what white means.

    Raises:
        InputError: as `load_image`; a mask of another aspect ratio; a mask that chooses nothing.
    """
    mask = load_image(source, option, background="black").image.convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > 0.01:
        sizes = f"{mask.width}x{mask.height} px for a picture of {size[0]}x{size[1]} px"
        raise InputError(option, f"a mask of {sizes}", "the picture's size or aspect ratio")
    binary = _binary(mask.resize(size, _NEAREST))
    if binary.getbbox() is None:
        raise InputError(option, "a mask that is black everywhere", chosen)
    return binary


def compare_sheet(pictures: Labelled, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Return the labelled pictures side by side, `columns` a row (default: at most 4), on white.

    `scale` enlarges every picture by that integer; by default small ones grow to about 256 px or the largest one.

    Raises:
        ValueError: no picture, or `columns` or `scale` below 1.
    """
    if not pictures or min(1 if value is None else value for value in (columns, scale)) < 1:
        raise ValueError("a sheet needs a picture, and columns and scale of at least 1")
    columns = min(columns or 4, len(pictures))
    target = max(256, *(max(picture.size) for _, picture in pictures))
    cells = [
        ImageOps.scale(picture.convert("RGB"), scale or max(1, target // max(picture.size)), _NEAREST)
        for _, picture in pictures
    ]
    font = ImageFont.load_default(14)
    width = max(cell.width for cell in cells)
    labels = [_wrap(label, font, width) for label, _ in pictures]
    text_height = 18 * max(label.count("\n") + 1 for label in labels) + 4
    height = max(cell.height for cell in cells) + text_height
    gap, rows = 8, ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        left, top = gap + index % columns * (width + gap), gap + index // columns * (height + gap)
        ImageDraw.Draw(sheet).multiline_text((left, top), label, "black", font, spacing=4)
        sheet.paste(cell, (left, top + text_height))
    return sheet


def _wrap(text: str, font: Any, width: int) -> str:
    for characters in range(max(width // 3, 4), 3, -1):
        lines = textwrap.wrap(text, characters, max_lines=3, placeholder="...")
        if all(font.getlength(line) <= width for line in lines):
            break
    return "\n".join(lines)
