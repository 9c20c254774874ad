"""What `--keep` and `--keep-background` say, checked before anything loads, and the kept pixels of a finished run."""

from typing import Any

from PIL import Image

from freectl.errors import InputError
from freectl.files import pictures
from freectl.tasks import options as config
from freectl.tasks.options import EditOptions


def checked_keep(options: EditOptions, size: tuple[int, int]) -> Image.Image | str | None:
    """The mask picture of what is kept, white = kept, "background", or None.

    Raises:
        InputError: both ways of saying it, a mask of another aspect, one that keeps nothing or everything, or a
            background without a concept that the source prompt names.
    """
    if options.keep_background:
        if options.keep != "none":
            raise InputError("--keep", f"'{options.keep}' with --keep-background", "one of the two")
        config.check_attention(options.concept, options.source_prompt, "--keep-background", "the option")
        return "background"
    if options.keep == "none":
        return None
    mask = pictures.load_mask(options.keep, size, "--keep", chosen="white where the input stays as it is")
    if mask.getextrema() == (255, 255):
        raise InputError("--keep", "a mask that is white everywhere", "black where the picture may change")
    return mask


def restored(checked: Any, fitted: pictures.Fitted, output: Any, index: int) -> Image.Image:
    """A result at the input's size; what is kept of the input is there as it was read, not as it was resized."""
    result = fitted.restore(output.images[index])
    flagged = output.nsfw_content_detected and output.nsfw_content_detected[index]
    if not output.kept or flagged:
        return result
    kept = checked.keep if isinstance(checked.keep, Image.Image) else fitted.restore_mask(output.kept[index])
    return Image.composite(checked.picture.image, result, kept)
