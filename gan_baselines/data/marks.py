"""What belongs to a picture beside its pixels: a class, or a caption, as numbers."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_baselines.errors import InputError

METADATA = "metadata.jsonl"
_CAPTIONS = f'lines with "file_name" and "text" in {METADATA} beside the pictures'


def read_captions(folder: Path, names: list[str], option: str = "--data") -> list[str]:
    """The captions of the pictures `names` in `folder`, from its metadata.jsonl (as the `datasets` library reads it).

    Raises:
        InputError: no such file, another form, or a picture without a caption.
    """
    try:
        lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
        known = {line["file_name"]: line["text"] for line in map(json.loads, filter(None, lines))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(option, f"'{folder / METADATA}', missing or of another form ({error})", _CAPTIONS) from error
    if lonely := [name for name in names if not isinstance(known.get(name), str) or not words_of(known[name])]:
        raise InputError(option, f"no caption for '{lonely[0]}' in '{folder / METADATA}'", _CAPTIONS)
    return [known[name] for name in names]


def words_of(text: str) -> list[str]:
    """The words of a sentence, in small letters."""
    return re.findall(r"\w+", text.lower())


def word_ids(text: str, words: tuple[str, ...], length: int, option: str = "--prompt") -> Tensor:
    """Words as numbers from 1 on, (length,) int64; 0 fills up.

    Raises:
        InputError: a word outside of `words`, or more than `length`.
    """
    found = words_of(text)
    if unknown := [word for word in found if word not in words]:
        raise InputError(option, f"the word '{unknown[0]}'", ", ".join(words))
    if len(found) > length:
        raise InputError(option, f"{len(found)} words", f"at most {length}")
    ids = torch.zeros(length, dtype=torch.long)
    ids[: len(found)] = torch.tensor([1 + words.index(word) for word in found], dtype=torch.long)
    return ids


def class_index(name: str, classes: tuple[str, ...], option: str = "--class") -> int:
    """The place of a class.

    Raises:
        InputError: not one of `classes`.
    """
    if name not in classes:
        raise InputError(option, f"'{name}'", ", ".join(classes))
    return classes.index(name)


def marked(model: Any, marks: tuple[str, ...]) -> dict[str, Tensor]:
    """The classes or captions of all pictures as numbers.

    Raises:
        InputError: one that the model was not made for.
    """
    if hasattr(model, "classes"):
        return {"class": torch.tensor([class_index(name, model.classes, "--data") for name in marks])}
    return {"words": torch.stack([word_ids(text, model.words, model.length, "--data") for text in marks])}
