"""Soft pencil lines: local contrast of the colours (morphological gradient) by kornia, dark on white."""

from PIL import Image

from freectl.errors import InputError
from freectl.preprocess.registry import Apply, Preprocess


def check(preprocess: Preprocess) -> None:
    """Raises InputError: differences out of range or order."""
    low, high = (preprocess.number(name, 0, 255) for name in ("low", "high"))
    if low >= high:
        raise InputError("--preprocess sketch=LOW,HIGH", f"{low:g} with {high:g}", "LOW below HIGH")


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """Largest minus smallest value in 3x3 px, strongest channel; white up to `low`, black from `high` on."""
    import torch
    from kornia.filters import gaussian_blur2d
    from kornia.morphology import gradient

    from freectl.preprocess.arrays import to_picture, to_tensor

    low, high = (preprocess.number(name, 0, 255) for name in ("low", "high"))

    def apply(image: Image.Image) -> Image.Image:
        smooth = gaussian_blur2d(to_tensor(image), (3, 3), (0.8, 0.8))
        contrast = gradient(smooth, torch.ones(3, 3)).amax(1)[0]
        return to_picture(1 - ((contrast - low) / (high - low)).clamp(0, 1).numpy())

    return apply
