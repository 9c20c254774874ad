"""Texts longer than an encoder reads, in pieces that are encoded one by one and laid one behind the other."""

from collections.abc import Callable, Sequence

Count = Callable[[Sequence[str]], list[int]]
"""Tokens of each of some texts, start and end not counted; a text has as many as its words together."""
MOST_PIECES = 10
"""A text of more is a mistake: each makes every step of a run slower."""


def pieces(text: str, count: Count, room: int) -> list[str]:
    """A text in pieces of at most `room` tokens, cut between words; a word longer than that is cut too.

    Returns:
        The text itself if it fits, else pieces that are each as long as whole words allow.
    """
    words = text.split()
    units = [unit for word, tokens in zip(words, count(words), strict=True) for unit in _cut(word, tokens, count, room)]
    if sum(tokens for _, tokens in units) <= room:
        return [text]
    made, free = [""], room
    for unit, tokens in units:
        if tokens > free:
            made.append("")
            free = room
        made[-1] += unit
        free -= tokens
    return [piece.strip() for piece in made]


def _cut(word: str, tokens: int, count: Count, room: int) -> list[tuple[str, int]]:
    """A word with a space before it, or its parts where it does not fit, each with its tokens."""
    parts = [(word, tokens)]
    while any(own > room and len(part) > 1 for part, own in parts):
        halves = [half for part, own in parts for half in (_halves(part) if own > room else (part,))]
        parts = list(zip(halves, count(halves), strict=True))
    return [(f" {part}" if index == 0 else part, own) for index, (part, own) in enumerate(parts)]


def _halves(part: str) -> tuple[str, str]:
    return part[: len(part) // 2], part[len(part) // 2 :]
