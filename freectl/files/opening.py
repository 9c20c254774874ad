"""Pictures before they are decoded: where their bytes come from, which formats may be read, how large they may be."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BytesIO
from typing import BinaryIO, cast

from PIL import Image, UnidentifiedImageError

from freectl.errors import InputError
from freectl.files.paths import check_file

Source = str | os.PathLike[str] | Image.Image

MAX_PIXELS = 100_000_000
LIMIT = "at most 100 megapixels"
PICTURE = "a still picture (PNG, JPEG, WebP, ...)"
MAX_BYTES = 256_000_000
"""Of what is piped in, which has to be held whole."""
_STILLS = "PNG JPEG WEBP AVIF HEIF GIF TIFF BMP DIB PPM JPEG2000 PSD TGA PCX ICO ICNS DDS QOI SGI"
# the further frames of these are previews, layers and shots beside one still picture; phones write MPO as .jpg
_STILL_WITH_FRAMES = ("MPO", "PSD", "HEIF")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_OTHERS = ((b"%!ps", "a PostScript file"), (b"%pdf", "a PDF"), (b"<svg", "an SVG"), (b"<html", "a web page"))


def _readable() -> tuple[str, ...]:
    with suppress(ImportError, OSError):  # OSError: a shared library that it needs is missing
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _STILLS.split() if name in Image.OPEN)


FORMATS = _readable()
"""Formats that `Image.open(..., formats=FORMATS)` may take anywhere: Pillow's others start programs (EPS runs
Ghostscript), hand bytes to stubs of other packages, or are no pictures."""


def stream_of(source: Source, option: str) -> tuple[str, AbstractContextManager[BinaryIO | Image.Image]]:
    """What a source is called in messages, and its bytes as a stream that can seek; a PIL picture is itself.

    Raises:
        InputError: nothing there, no regular file, no bytes, or more than `MAX_BYTES` through a pipe.
    """
    if isinstance(source, Image.Image):
        return "a PIL picture", nullcontext(source)
    if not isinstance(source, str | os.PathLike):
        raise InputError(option, f"a {type(source).__name__}", 'a path, "-" or a PIL picture')
    name = os.fspath(source)
    if name == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(option, "no data on standard input", "the bytes of a picture piped in")
        name, stream = "standard input", _held(sys.stdin.buffer, "standard input", option)
    else:
        check_file(name, option, PICTURE, piped=True)
        try:
            stream = open(name, "rb")  # noqa: SIM115 - the caller closes it
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(option, f"{name}, unreadable ({reason})", "an existing, readable picture file") from error
        if not stream.seekable():  # a pipe given by name
            stream = _held(stream, name, option)
    if not stream.read(1):
        raise InputError(option, f"{name}, zero-sized (0 bytes)", PICTURE)
    stream.seek(0)
    return name, stream


def _held(pipe: BinaryIO, name: str, option: str) -> BinaryIO:
    data = pipe.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(option, f"{name}, more than {MAX_BYTES // 10**6} MB", "the bytes of one picture")
    return cast(BinaryIO, BytesIO(data))


def opened(stream: BinaryIO | Image.Image, name: str, option: str) -> Image.Image:
    """The picture with its header checked; nothing is decoded yet.

    Raises:
        InputError: another format than `FORMATS`, empty, above 100 megapixels, or animated.
        Exception: whatever Pillow's decoders raise for damaged bytes.
    """
    if isinstance(stream, Image.Image):
        picture = stream
        # opened by the caller and not decoded yet; Pillow opens an MPO as a JPEG
        if getattr(picture, "tile", None) and picture.format not in (None, "MPO", *FORMATS):
            raise InputError(option, f"{name}, of the format {picture.format}", PICTURE)
    else:
        try:
            picture = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _foreign(stream, name, option) from error
    width, height = picture.size
    if not (width and height):
        raise InputError(option, f"{name}, zero-sized ({width}x{height} px)", PICTURE)
    if width * height > MAX_PIXELS:
        raise InputError(option, f"{name}, {width}x{height} px = {width * height / 1e6:.1f} megapixels", LIMIT)
    # not n_frames, which reads the headers of all pages
    if getattr(picture, "is_animated", False) and picture.format not in _STILL_WITH_FRAMES:
        raise InputError(option, f"{name}, animated or of several pages", PICTURE)
    return picture


def _foreign(stream: BinaryIO, name: str, option: str) -> InputError:
    stream.seek(0)
    head = stream.read(512)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and "HEIF" not in FORMATS:
        allowed = "PNG, JPEG, WebP, or this after: pip install 'freectl[heic]'"
        return InputError(option, f"{name}, a HEIC picture, for which pillow-heif is not installed", allowed)
    if head[4:8] == b"ftyp" and head[8:12] not in (*_HEIC_BRANDS, b"avif", b"avis"):
        return InputError(option, f"{name}, a film", PICTURE)
    kind = next((kind for mark, kind in _OTHERS if mark in head.lower()), "not a picture or a damaged one")
    return InputError(option, f"{name}, {kind}", PICTURE)
