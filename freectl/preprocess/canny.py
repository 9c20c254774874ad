"""Canny edges (Canny, 1986) by kornia, dark on white, as the published code turns them for line conditions.

Its thresholds, 100 and 200, are for pictures without blur; a blur of 1 px takes a third of a step's gradient, hence
65 and 130.
"""

from PIL import Image

from freectl.errors import InputError
from freectl.preprocess.registry import Apply, Preprocess

LARGEST = 1442.0
"""Of the Sobel gradient of grey levels: sqrt(2) * 4 * 255, rounded down."""


def check(preprocess: Preprocess) -> None:
    """Raises InputError: thresholds out of range or order."""
    low, high = (preprocess.number(name, 1e-3, LARGEST) for name in ("low", "high"))
    if low > high:
        raise InputError("--preprocess canny=LOW,HIGH", f"{low:g} above {high:g}", "LOW at most HIGH")


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """Edges of one pixel; blur of sigma 1 px, hysteresis between the thresholds."""
    from kornia.filters import canny

    from freectl.preprocess.arrays import to_picture, to_tensor

    low, high = (preprocess.number(name, 1e-3, LARGEST) for name in ("low", "high"))

    def apply(image: Image.Image) -> Image.Image:
        _, edges = canny(to_tensor(image), low, high)
        return to_picture(1 - edges[0, 0].numpy())

    return apply
