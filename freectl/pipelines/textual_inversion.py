"""Textual inversion (Gal et al., arXiv 2208.01618): new words, whose vectors come from a safetensors file."""

from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import tensor_files

OPTION = "--textual-inversion"
_XL = {"clip_l": "", "clip_g": "_2"}
"""Tensors of an SDXL file, and the suffix of the encoder and tokenizer each belongs to."""
_UNNAMED = "emb_params"


def check_textual_inversion(file: Path) -> None:
    """Refuse files of another layout, by their header alone.

    Raises:
        InputError: damaged, neither one tensor nor SDXL's pair, or a tensor that is no vectors.
    """
    shapes = tensor_files.checked(file, OPTION)
    allowed = "one tensor, (vectors, width) or (width), or clip_l and clip_g for SDXL"
    if len(shapes) != 1 and set(shapes) != set(_XL):
        raise InputError(OPTION, f"'{file}' with {len(shapes)} tensors", allowed)
    for shape in shapes.values():
        if len(shape) not in (1, 2) or 0 in shape:
            raise InputError(OPTION, f"'{file}' with a tensor of the shape {tuple(shape)}", allowed)


def load_textual_inversion(pipe: Any, file: Path) -> list[str]:
    """Teach a pipeline the word of a file.

    The word is the tensor's name, as diffusers saves it; files of other tools name no word, and theirs is the file's
    own name without suffix.

    Returns:
        The words that the tokenizer now knows; a word of several vectors takes as many, and is written as the first.

    Raises:
        InputError: the file does not fit the model, or the word is known already.
    """
    from safetensors.torch import load_file

    tensors = load_file(file)
    xl = getattr(pipe, "text_encoder_2", None) is not None
    if xl != (set(tensors) == set(_XL)):
        needed = "clip_l and clip_g, one tensor for each text encoder" if xl else "one tensor"
        raise InputError(OPTION, f"'{file}', which holds {', '.join(tensors)}", f"{needed}, as this model takes")
    before = set(pipe.tokenizer.get_added_vocab())
    name = next(iter(tensors))
    word = file.stem if xl or name == _UNNAMED else name
    try:
        for key, suffix in _XL.items() if xl else ((name, ""),):
            parts = {part: getattr(pipe, part + suffix) for part in ("text_encoder", "tokenizer")}
            pipe.load_textual_inversion({word: tensors[key]}, token=word, **parts)
    except ValueError as error:
        found = f"'{file}', which cannot be loaded into this model ({error})"
        raise InputError(OPTION, found, "vectors of its text encoder's width, a word that is new to it") from error
    return sorted(set(pipe.tokenizer.get_added_vocab()) - before)
