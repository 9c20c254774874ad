"""Pictures in: every input becomes what a person sees of it, 8-bit RGB, or a one-line error.

The reader of every door: commands, functions, pipelines, evaluation. What it is made of lies in `opening` (bytes,
formats, limits), `seen` (orientation, colour, depth, transparency) and `arrays`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files.arrays import is_array, pictures_in
from freectl.files.fitting import Fitted, Size, binary, edge_colour, fit, working_size
from freectl.files.opening import FORMATS, LIMIT, MAX_PIXELS, PICTURE, Source, opened, stream_of
from freectl.files.record import check_output, save_image
from freectl.files.seen import check_background, halvings, seen
from freectl.files.sheet import Labelled, compare_sheet

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Fitted",
    "Labelled",
    "LoadedImage",
    "Size",
    "Source",
    "all_as_seen",
    "as_seen",
    "check_background",
    "check_output",
    "compare_sheet",
    "edge_colour",
    "fit",
    "load_image",
    "load_mask",
    "name_of",
    "save_image",
    "working_size",
]


@dataclass(frozen=True)
class LoadedImage:
    """A picture as the models take it.

    Attributes:
        image: RGB, as a person sees it.
        original_size: (width, height) in px, upright; larger than the image's own where that was read reduced.
        warnings: what a user should know of. source: its name in messages.
        alpha: "L" of the image's size, 0 = transparent; None where nothing is.
    """

    image: Image.Image
    original_size: Size
    warnings: list[str]
    source: str
    alpha: Image.Image | None = None


def as_seen(picture: Any, option: str = "image", background: str = "white") -> Image.Image:
    """One picture as a person sees it in a viewer, as 8-bit RGB.

    Upright by its EXIF orientation, in sRGB by its colour profile, 16-bit and float values brought to 8 bits,
    transparency composited on `background`.

    Args:
        picture: path, PIL picture, array (H, W, C) or (H, W), tensor (C, H, W) or (H, W); a batch of one is one.
        option: what messages call it.

    Raises:
        InputError: see `load_image`.
    """
    return load_image(picture, option, background).image


def all_as_seen(pictures: Any, option: str = "image", background: str = "white") -> list[Image.Image]:
    """`as_seen` of one picture, of a list of them, or of an array or tensor with a batch axis.

    Raises:
        InputError: see `load_image`; or an empty list.
    """
    if isinstance(pictures, list | tuple):
        found = [one for each in pictures for one in all_as_seen(each, option, background)]
    elif is_array(pictures):
        found = [as_seen(one, option, background) for one in pictures_in(pictures, option)]
    else:
        found = [as_seen(pictures, option, background)]
    if not found:
        raise InputError(option, "no picture", "one or more")
    return found


def load_image(
    source: Any, option: str = "--image", background: str = "white", *, reduced: bool = False
) -> LoadedImage:
    """Read a path, "-" (bytes on standard input), PIL picture, array or tensor as 8-bit RGB, as a person sees it.

    Args:
        background: colour on which transparency lies.
        reduced: whether a picture above 16 megapixels may be read at a half or a quarter of its sides, which spares
            memory; 4 megapixels or more remain.

    Raises:
        InputError: missing, unreadable, truncated, animated, empty or above 100 megapixels; or not a picture.
    """
    if isinstance(source, LoadedImage):  # read and checked before
        return source
    check_background(background)
    if is_array(source):
        source, name = _only(pictures_in(source, option), option), name_of(source)
        context: Any = stream_of(source, option)[1]
    else:
        name, context = stream_of(source, option)
    notes: list[str] = []
    with context as stream, warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the limit here is checked from the same header, before decoding
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = opened(stream, name, option)
            factor = halvings(picture.size) if reduced else 1
            full, factor = _decoded(picture, factor, picture is not stream)
            found = seen(picture, f"{option}: {name}", notes, background, factor)
        except FreectlError:
            raise
        except Image.DecompressionBombError as error:
            raise InputError(option, f"{name}, too large ({error})", LIMIT) from error
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise InputError(option, f"{name}, truncated or damaged ({error})", PICTURE) from error
    return LoadedImage(found.image, full[::-1] if found.side else full, notes, name, found.alpha)


def _decoded(picture: Image.Image, factor: int, own: bool) -> tuple[Size, int]:
    """Decode; the size as it is stored, and what is left of `factor` where the decoder has reduced the picture.

    Args:
        own: whether the picture was opened here; a caller's is not told to decode to less.
    """
    stored = picture.size
    if own and factor > 1 and picture.draft(picture.mode, (stored[0] // factor, stored[1] // factor)) is not None:
        picture.load()  # a JPEG, of which a half, a quarter or an eighth was decoded
        return stored, max(1, round(factor * picture.width / stored[0]))
    picture.load()  # may turn the picture upright: a TIFF's size is known only then
    return picture.size, factor


def name_of(source: Any) -> str:
    """What a picture is called in messages and records."""
    return "an array" if is_array(source) else "a PIL picture" if isinstance(source, Image.Image) else str(source)


def _only(found: Sequence[Image.Image], option: str) -> Image.Image:
    if len(found) != 1:
        raise InputError(option, f"{len(found)} pictures in one array", "one picture")
    return found[0]


def load_mask(
    source: Any, size: Size, option: str = "--mask", chosen: str = "white where the picture may change"
) -> Image.Image:
    """Read a mask as "L" with 0 and 255 only, at `size` = the picture's (width, height): bright is chosen.

    A mask of another size is taken when its aspect ratio is the picture's within 1 %; transparent counts as black.
    `chosen` says what white means.

    Raises:
        InputError: as `load_image`; a mask of another aspect ratio; a mask that chooses nothing.
    """
    mask = load_image(source, option, "black", reduced=True).image.convert("L")
    if abs(mask.width * size[1] / (mask.height * size[0]) - 1) > 0.01:
        sizes = f"{mask.width}x{mask.height} px for a picture of {size[0]}x{size[1]} px"
        raise InputError(option, f"a mask of {sizes}", "the picture's size or aspect ratio")
    made = binary(mask.resize(size, Image.Resampling.NEAREST))
    if made.getbbox() is None:
        raise InputError(option, "a mask that is black everywhere", chosen)
    return made
