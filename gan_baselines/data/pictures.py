"""One picture: file to 8-bit RGB, tensor to file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gan_baselines.errors import GanError, InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000
_PICTURE = "a still picture (PNG, JPEG, WebP, BMP, TIFF) of at most 100 megapixels"


def picture_files(folder: Path, option: str = "--data") -> list[Path]:
    """Pictures directly in `folder`, by name.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(option, f"no folder '{folder}'", "an existing folder of pictures")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(option, f"no picture in '{folder}'", f"files ending in {', '.join(sorted(SUFFIXES))}")
    return files


def by_stem(files: Sequence[Path], option: str = "--data") -> dict[str, Path]:
    """Return `files` by name without ending, by which pictures are paired and written.

    Raises:
        InputError: two of one name, such as 1.png and 1.jpg.
    """
    found = {path.stem: path for path in files}
    if len(found) < len(files):
        path = next(path for path in files if found[path.stem] != path)
        allowed = "one file for each name without ending"
        raise InputError(option, f"several files named '{path.stem}' in '{path.parent}'", allowed)
    return found


def has_pictures(folder: Path) -> bool:
    """Whether a picture lies directly in `folder`."""
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def picture_size(path: Path, option: str = "--data") -> tuple[int, int]:
    """Return (width, height) in px after EXIF rotation, from the header alone.

    Raises:
        InputError: missing, not a picture, or too large.
    """
    with _quiet():
        try:
            with Image.open(path) as image:
                width, height = image.size
                # the base class's: a PNG's own looks behind the pixels too, and decodes them all for it
                turned = Image.Image.getexif(image).get(0x0112, 1) >= 5
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(path, option, error) from error
    if width * height > MAX_PIXELS:
        raise InputError(option, f"'{path}' of {width}x{height} px", _PICTURE)
    return (height, width) if turned else (width, height)


def read_picture(path: Path, option: str = "--data") -> Image.Image:
    """Read `path` as 8-bit RGB: EXIF rotation applied, transparency on white, other modes converted.

    Raises:
        InputError: missing, truncated, not a picture, or too large.
    """
    picture_size(path, option)
    with _quiet():
        try:
            with Image.open(path) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise _unreadable(path, option, error) from error


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture to uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def to_range(pictures: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return pictures.float().div_(127.5).sub_(1)


def to_image(picture: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an RGB picture."""
    rounded = picture.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).cpu().numpy())


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all.

    Raises:
        GanError: the disk is full or the folder not writable.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        image.save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise GanError(f"cannot write '{path}': {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _unreadable(path: Path, option: str, error: Exception) -> InputError:
    why = "missing" if isinstance(error, FileNotFoundError) else f"damaged or not a picture ({error})"
    return InputError(option, f"'{path}', {why}", _PICTURE)


def _quiet() -> warnings.catch_warnings:
    # Pillow warns of large and odd files; the limit here is checked from the same header
    return warnings.catch_warnings(action="ignore")
