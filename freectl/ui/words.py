"""Texts that people type into the page: lists of numbers, and prompts whose unknown words are marked."""

import re
from html import escape
from typing import Any

from freectl.errors import InputError
from freectl.files.data import EMBEDDED

MOST = 16
"""Pictures that one press of the button makes at most."""


def whole_numbers(text: str, option: str = "--seed") -> list[int]:
    """Seeds in a text: "0", "1, 4, 7", "0-3", or several of these.

    Raises:
        InputError: another text, or more than `MOST` numbers.
    """
    found: list[int] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        matched = re.fullmatch(r"(\d{1,18})(?:\s*-\s*(\d{1,18}))?", part)
        if matched is None:
            raise InputError(option, repr(part), "whole numbers and ranges, such as 0-3, 7")
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if last < first or last - first >= MOST:
            raise InputError(option, repr(part), f"a range upwards of at most {MOST} numbers")
        found += range(first, last + 1)
    if not 1 <= len(found) <= MOST:
        raise InputError(option, f"{len(found)} numbers", f"1 to {MOST}")
    return list(dict.fromkeys(found))


def values(text: str) -> list[str]:
    """The parts of a text with commas between, without empty ones."""
    return list(dict.fromkeys(part for part in (one.strip() for one in text.split(",")) if part))


def parts(value: Any) -> tuple[str, ...]:
    """The parts of a text with ; between; other values are their own only part."""
    texts = value if isinstance(value, list | tuple) else str(value).split(";")
    return tuple(part for part in (str(one).strip() for one in texts) if part)


def no_file(value: Any) -> bool:
    """Whether a mask is said in words, one or several, and no picture."""
    return set(parts(value)) <= {"none", "attention"}


def combinations(seeds: list[int], several: list[str], option: str) -> list[tuple[int, str | None]]:
    """Every seed with every value of the setting that is varied; None where none is.

    Raises:
        InputError: more than `MOST` pictures.
    """
    found: list[tuple[int, str | None]] = [(seed, value) for value in several or [None] for seed in seeds]  # type: ignore[list-item]
    if len(found) > MOST:
        raise InputError(option, f"{len(found)} pictures", f"at most {MOST} in one go")
    return found


def unknown(text: str) -> list[str]:
    """Words of a prompt that the embedded model does not know, each once."""
    from freectl.mini.domain import vocabulary

    known = set(vocabulary())
    return list(dict.fromkeys(word for word in re.findall(r"[a-z]+", text.lower()) if word not in known))


def marked(text: str, model: str) -> str:
    """HTML of a prompt with the words marked that the embedded model does not know; empty where it knows all."""
    missing = set(unknown(text)) if model in EMBEDDED else set()
    if not missing:
        return ""
    parts = re.split(r"([A-Za-z]+)", text)
    shown = "".join(f"<mark>{escape(one)}</mark>" if one.lower() in missing else escape(one) for one in parts)
    return f"<p class='unknown'>{model} does not know what is marked: {shown}</p>"
