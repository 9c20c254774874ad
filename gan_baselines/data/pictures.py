"""One picture: file to 8-bit RGB as a viewer shows it, or to grey or RGBA; tensor to file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from gan_baselines.config import Form
from gan_baselines.data.forms import TURNED
from gan_baselines.errors import GanError, InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# what Pillow may take a file for: its other readers include one that runs Ghostscript on what a file holds
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
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
        InputError: missing, not a picture, animated or paged, or too large.
    """
    with _quiet():
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                paged = image.format != "MPO" and _has_second_frame(image)
                # the base class's: a PNG's own looks behind the pixels too, and decodes them all for it
                turned = Image.Image.getexif(image).get(0x0112, 1) >= 5
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(path, option, error) from error
    if paged:
        raise InputError(option, f"'{path}', animated or of several pages", _PICTURE)
    if width * height > MAX_PIXELS:
        raise InputError(option, f"'{path}' of {width}x{height} px", _PICTURE)
    return (height, width) if turned else (width, height)


def read_picture(path: Path, option: str = "--data", form: Form = "rgb") -> Image.Image:
    """Read `path` as a viewer shows it: 8-bit RGB, or "L", "RGBA", or "F" from 0 to 65535 by its form.

    EXIF rotation and colour profile applied, transparency on white where it is not asked for, 16-bit and float values
    scaled.

    Raises:
        InputError: missing, truncated, not a picture, animated, or too large.
    """
    picture_size(path, option)
    with _quiet():
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return TURNED[form](ImageOps.exif_transpose(image))
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise _unreadable(path, option, error) from error


def read_labels(path: Path, option: str = "--data") -> NDArray[np.int32]:
    """Read a map of class indices or instance numbers, (H, W): a grey or palette PNG of 8 or 16 bits, not turned.

    Raises:
        InputError: missing, damaged, or in colours.
    """
    allowed = "a grey or palette PNG with a number a pixel"
    with _quiet():
        try:
            with Image.open(path, formats=FORMATS) as image:
                values = np.asarray(image)
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise InputError(option, f"'{path}', unreadable ({error})", allowed) from error
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise InputError(option, f"'{path}' in colours", allowed)
    return values.astype(np.int32)


def to_tensor(image: Image.Image) -> Tensor:
    """Picture to uint8 (C, H, W); mode "F", of 16 bits, to float32 (1, H, W) from 0 to 255."""
    if image.mode == "F":
        return torch.from_numpy(np.array(image, dtype=np.float32)).clamp_(0, 65535).div_(257)[None]
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if image.mode == "L" else pixels.permute(2, 0, 1).contiguous()


def to_range(pictures: Tensor) -> Tensor:
    """[0, 255] to float32 in [-1, 1]."""
    return pictures.float().div(127.5).sub_(1)


def to_image(picture: Tensor, form: Form = "rgb") -> Image.Image:
    """(C, H, W) in [-1, 1] to a picture: "RGB", "L", "RGBA", or "I;16"."""
    share = picture.detach().float().clamp(-1, 1).add(1).div(2).cpu()
    if form == "grey16":
        return Image.fromarray(share[0].double().mul(65535).round().numpy().astype(np.uint16))
    rounded = share.mul(255).round().to(torch.uint8).numpy()
    return Image.fromarray(rounded[0] if form == "grey" else np.ascontiguousarray(rounded.transpose(1, 2, 0)))


def shown(pictures: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] as (N, 3, H, W) that people see: grey in three channels, transparency on white."""
    if pictures.shape[1] == 4:
        colours, alpha = pictures[:, :3], (pictures[:, 3:] + 1) / 2
        return colours * alpha + 1 - alpha
    return pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures


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


def _has_second_frame(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _unreadable(path: Path, option: str, error: Exception) -> InputError:
    why = "missing" if isinstance(error, FileNotFoundError) else f"damaged or not a picture ({error})"
    return InputError(option, f"'{path}', {why}", _PICTURE)


def _quiet() -> warnings.catch_warnings:
    # Pillow warns of large and odd files; the limit here is checked from the same header
    return warnings.catch_warnings(action="ignore")
