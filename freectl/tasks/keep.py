"""What `--keep` and `--keep-background` say, checked before anything loads, and the kept pixels of a finished run."""

from typing import Any

import numpy as np
from PIL import Image, ImageColor

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
        if options.concept is not None and options.keep_concept is None:
            config.check_attention(options.concept, options.source_prompt, "--keep-background", "the option")
        else:
            config.check_kept(options.keep_concept, options.source_prompt)
        return "background"
    if options.keep_concept is not None:
        raise InputError("--keep-concept", f"'{options.keep_concept}' alone", "together with --keep-background")
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
    if flagged:
        return result
    if output.kept:
        kept = checked.keep if isinstance(checked.keep, Image.Image) else fitted.restore_mask(output.kept[index])
        result.paste(checked.picture.image, (0, 0), kept)
    return with_alpha(result, checked)


def with_alpha(result: Image.Image, checked: Any) -> Image.Image:
    """A result at the input's size with the input's transparency, where that is asked for and there is any.

    On the background colour it then looks as the result does: C = a F + (1 - a) B, solved for F.
    """
    alpha = checked.picture.alpha
    if alpha is None or not checked.options.keep_alpha:
        return result
    share = np.asarray(alpha, dtype=np.float32)[..., None] / 255
    below = np.array(ImageColor.getrgb(checked.options.background), dtype=np.float32)
    colours = (np.asarray(result.convert("RGB"), dtype=np.float32) - (1 - share) * below) / np.maximum(share, 1 / 255)
    made = Image.fromarray(np.rint(colours.clip(0, 255)).astype(np.uint8))
    made.putalpha(alpha)
    return made
