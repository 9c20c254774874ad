"""From a picture's own size to the size a model works at, and back."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from PIL import Image

Size = tuple[int, int]
_LANCZOS = Image.Resampling.LANCZOS


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
        return binary(mask.crop(self.box).resize(self.original_size, _LANCZOS))

    def fit_mask(self, mask: Image.Image, padding: int = 0) -> Image.Image:
        """Map a binary "L" mask of the input's size to the working size: 0 or 255, `padding` around the input."""
        left, top, right, bottom = self.box
        canvas = Image.new("L", self.image.size, padding)
        canvas.paste(mask.resize((right - left, bottom - top), _LANCZOS), (left, top))
        return binary(canvas)


def fit(image: Image.Image, size: Size, original_size: Size | None = None) -> Fitted:
    """Resize `image` to `size` (width, height in px): stretched, or padded with its edge colour for a square `size`.

    A picture that already has the size is taken bit for bit.

    Args:
        original_size: what results are mapped back to, where `image` was read reduced; default: its own.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    inner = size
    if size[0] == size[1]:
        # padding the small copy, not the input: a 50000x100 px banner would need 7 GB as a square
        inner = tuple(max(1, round(side * size[0] / max(image.size))) for side in image.size)  # type: ignore[assignment]
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = Image.new("RGB", size, edge_colour(image))
    canvas.paste(image.resize(inner, _LANCZOS), (left, top))
    return Fitted(canvas, original_size or image.size, (left, top, left + inner[0], top + inner[1]))


def binary(mask: Image.Image) -> Image.Image:
    """The mask with 0 below 128 and 255 else."""
    return mask.point(lambda value: 255 if value >= 128 else 0)


def edge_colour(image: Image.Image) -> tuple[int, ...]:
    """Median RGB colour of the outermost pixels, which padding takes."""
    right, bottom = image.size
    edges = ((0, 0, right, 1), (0, bottom - 1, right, bottom), (0, 0, 1, bottom), (right - 1, 0, right, bottom))
    border = np.concatenate([np.asarray(image.crop(edge)).reshape(-1, 3) for edge in edges])
    return tuple(int(channel) for channel in np.median(border, axis=0))
