"""One picture: file to 8-bit RGB as a viewer shows it, tensor to file."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

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


def read_picture(path: Path, option: str = "--data") -> Image.Image:
    """Read `path` as 8-bit RGB as a viewer shows it.

    EXIF rotation and colour profile applied, transparency on white, 16-bit and float values scaled.

    Raises:
        InputError: missing, truncated, not a picture, animated, or too large.
    """
    picture_size(path, option)
    with _quiet():
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
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
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
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
    """Grey values of 16 bits by their range, floats of [0, 1] by theirs, anything else by its own extent."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        values = values * (255 / 65535)
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    return Image.fromarray(np.rint(values).astype(np.uint8))


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
