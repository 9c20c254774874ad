"""What each picture of a batch has of what the whole batch gave: its part of the cost, and its own warnings."""

import re
from collections.abc import Sequence
from typing import Any

_NOT_SEEN = re.compile(r"; not seen: '(?P<rest>.*)'$", re.DOTALL)


def cost_of_one(cost: dict[str, Any], count: int) -> dict[str, Any]:
    """One of `count` equal parts of a cost record; peak memory is that of all."""
    if count == 1:
        return cost
    seconds = {stage: round(value / count, 4) for stage, value in cost["seconds"].items()}
    parts = {name: _part(cost[name], count) for name in ("row_forwards", "row_backwards")}
    return {**cost, **parts, "seconds": seconds, "batch": count}


def _part(number: float, count: int) -> float:
    part = round(number / count, 6)
    return int(part) if part == int(part) else part


def own_warnings(warnings: Sequence[str], texts: Sequence[str], count: int) -> list[str]:
    """Warnings of a batch without those on texts that are another picture's.

    Args:
        texts: the picture's own.
    """
    said = [_letters(text) for text in texts]

    def own(warning: str) -> bool:
        found = _NOT_SEEN.search(warning)
        return found is None or any(text.endswith(_letters(found["rest"])) for text in said)

    return [warning for warning in warnings if count == 1 or own(warning)]


def _letters(text: str) -> str:
    # tokenizers bring spaces and case to a form of their own
    return "".join(character for character in text.lower() if character.isalnum())
