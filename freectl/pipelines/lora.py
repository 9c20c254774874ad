"""LoRA files (Hu et al., arXiv 2106.09685) with their strengths: `FILE` or `FILE:0.8`, one or several."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.files.paths import at_home, is_file
from freectl.pipelines.accounts import some, unused_of_lora

OPTION = "--lora"
FITTING = "a LoRA made for this model's architecture"
LARGEST = 10.0
"""Strength beyond which a LoRA is a mistake of writing."""


@dataclass(frozen=True)
class Lora:
    """A LoRA file and the factor of what it adds to the weights; 1 = as it was trained."""

    path: Path
    strength: float = 1.0


def parse(text: str) -> Lora:
    """`FILE` or `FILE:STRENGTH`, by name alone.

    Raises:
        InputError: a strength that is no number of -10 to 10.
    """
    path, colon, number = text.rpartition(":")
    if not colon or is_file(at_home(text)) or not path.lower().endswith(".safetensors"):
        return Lora(at_home(text))
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not abs(strength) <= LARGEST:
        raise InputError(
            OPTION, f"'{text}' with the strength '{number}'", f"FILE:STRENGTH, -{LARGEST:g} to {LARGEST:g}"
        )
    return Lora(at_home(path), strength)


def check(texts: Sequence[str]) -> list[Lora]:
    """The LoRAs that are asked for, of whose files the headers are read.

    Raises:
        InputError: missing, damaged, not safetensors or empty; a strength that is no number; one file twice; or no peft
            to load them.
    """
    found = [parse(text) for text in texts]
    if found and find_spec("peft") is None:
        raise InputError(OPTION, f"'{found[0].path}' without peft", "LoRA files after: pip install 'freectl[lora]'")
    for one in found:
        tensor_files.named(one.path, OPTION, "a .safetensors file, or one with its strength: FILE.safetensors:0.8")
        if not tensor_files.checked(one.path, OPTION):
            raise InputError(OPTION, f"'{one.path}', which holds nothing", FITTING)
    paths = [one.path.resolve() for one in found]
    twice = next((one.path for one in found if paths.count(one.path.resolve()) > 1), None)
    if twice is not None:
        raise InputError(OPTION, f"'{twice}' twice", "each file once, with the strength it should have")
    return found


def load(pipe: Any, texts: Sequence[str]) -> list[str]:
    """Put LoRAs on a pipeline, all at once, each at its strength.

    Returns:
        What was not used of the files.

    Raises:
        InputError: as `check`, diffusers loads none for this kind of model, or a file does not fit it.
    """
    found = check(texts)
    if found and not hasattr(pipe, "load_lora_weights"):
        made_for = f"a LoRA for a {type(pipe).__name__}, for which diffusers has no loader"
        raise InputError(OPTION, made_for, "none, or another --model")
    names = [f"lora_{index}" for index in range(len(found))]
    notes = [_load_one(pipe, text, name, one) for text, name, one in zip(texts, names, found, strict=True)]
    if names and (len(names) > 1 or found[0].strength != 1):
        pipe.set_adapters(names, [one.strength for one in found])
    return [note for note in notes if note]


def _load_one(pipe: Any, text: str, name: str, one: Lora) -> str:
    try:
        with _unsaid():
            state = pipe.lora_state_dict(str(one.path))
            state = state[0] if isinstance(state, tuple) else state
            pipe.load_lora_weights(str(one.path), adapter_name=name)
    except Exception as error:  # diffusers and peft raise whatever the file leads them to
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InputError(OPTION, f"'{text}', which cannot be loaded into this model ({first})", FITTING) from error
    unused, count = unused_of_lora(pipe, state, name)
    if len(unused) == count:
        found = f"'{text}', which has no effect: this model has none of its {count} layers ({some(unused)})"
        raise InputError(OPTION, found, FITTING)
    return f"{OPTION} {text}: {len(unused)} of {count} layers are not used: {some(unused)}" if unused else ""


@contextmanager
def _unsaid() -> Iterator[None]:
    """What diffusers logs beside its exceptions stays unsaid: the error says it."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)
