"""Kinds of model that freectl does not open, told by their names before weights are read: why, and what to use."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from freectl.errors import InputError

_BASE = "the text-to-image model that it was made from"
_RULES: tuple[tuple[str, str, str], ...] = (
    ("sana-?sprint", "SANA-Sprint, whose steps are a consistency model's and lie on no path of noise levels", ""),
    ("sana", "SANA, whose self-attention is linear and has no keys that could be compared", ""),
    ("ideogram", "Ideogram 4, which is guided by a second network and published in fp8 and nf4 alone", ""),
    ("flux-?3", "FLUX.3, made of modular blocks, whose distilled form leaps to given times and follows no path", ""),
    ("consistency", "a consistency model, whose steps lie on no path of noise levels", _BASE),
    ("edit|kontext|pix2pixpipe|layered", "an editor, which reads pictures beside its instruction", _BASE),
    ("omni", "a model that reads pictures beside its text", _BASE),
    ("inpaint|fill|paintby", "an inpainting model, whose network takes a mask", f"{_BASE}, with --keep"),
    ("controlnet|adapter|control|flux-depth", "a model with a network for conditions beside it",
     f"{_BASE}; freectl control takes conditions"),
    ("video|wan|ltx|cosmos|mochi|animate|motion|skyreels|allegro|latte|helios|cogvideo|i2v", "a model of films", ""),
    ("audio|music|dancediff|ace-?step|spectrogram", "a model of sound", ""),
    ("upscal|superres|refiner", "a model that enlarges or refines pictures", ""),
    ("^if[a-z]*pipeline|cascade|wuerstchen|unclip|kandinsky|karlo|prior",
     "a cascade of several networks, of which none knows text and picture alike", ""),
)  # fmt: skip
"""Pattern of a pipeline's class or of diffusers' name of a single file's kind; what it is; what to use, "" = another
model. The first that fits counts."""


def check_name(name: Any, found: str, allowed: str) -> None:
    """Refuse a pipeline by the name of its class, or a single file by diffusers' name of its kind.

    Args:
        found: where it was found, in words. allowed: what may be used in place of models without a relative here.

    Raises:
        InputError: it is of a kind that is not opened; the message says why and what to use.
    """
    if not isinstance(name, str):
        return
    for pattern, what, instead in _RULES:
        if re.search(pattern, name, re.IGNORECASE):
            raise InputError("--model", f"{found}: {what}", instead or f"a model of {allowed}")


def check_kind(shapes: Mapping[str, tuple[int, ...]], found: str, allowed: str) -> str:
    """Refuse a single file by its layout; arguments as of `check_name`.

    Args:
        shapes: of its tensors, by name.

    Returns:
        diffusers' name of its kind; "v1" where it knows none.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind = infer_diffusers_model_type({name: SimpleNamespace(shape=shape) for name, shape in shapes.items()})
    check_name(kind, f"{found} of kind '{kind}'", allowed)
    return kind
