"""Where words are in what a language model reads: a text inside a template, in tokens that do not end at words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from freectl.denoising.attention_maps import TextSequence
from freectl.errors import InputError

_MARK = "\ufffc"


@dataclass(frozen=True)
class LanguageSequence(TextSequence):
    """A stretch of encoded text whose tokens are told apart by the letters that they stand for.

    Attributes:
        template: text -> all that is read. before: letters of it in front of the text.
        dropped: tokens of its beginning that are not embedded. filled: whether it is filled up to `length`.
    """

    template: Callable[[str], str] = str
    before: int = 0
    dropped: int = 0
    filled: bool = False

    def ids(self, text: str) -> list[int]:
        """Numbers of the tokens that are embedded, the template's included, padding not."""
        return [number for number, _ in self._tokens(text)]

    def front(self, text: str) -> int:
        """As `TextSequence.front`: where a tokenizer fills up so."""
        left = self.filled and self.tokenizer.padding_side == "left"
        return self.length - len(self._tokens(text)) if left else 0

    def positions(self, text: str | Sequence[str], words: str, option: str = "--concept") -> list[int]:
        """As `TextSequence.positions`, in whatever case the words are written.

        Raises:
            InputError: the words are not in the text.
        """
        whole = text if isinstance(text, str) else " ".join(text)
        found = re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", whole, re.IGNORECASE)
        letters = [one.span() for one in found if words]
        if not letters:
            raise InputError(option, f"'{words}', which is not in '{whole}'", f"words of: {whole or '(none)'}")
        spans = [self._between(whole, *one) for one in letters]
        front = self.front(whole)
        return [front + place for span in spans for place in span]

    def word_spans(self, text: str) -> list[list[int]]:
        """As `TextSequence.word_spans`, without padding; what stands in front of a word is the word's."""
        ends = [0, *(word.end() for word in re.finditer(r"\S+", text))]
        return [self._between(text, *pair) for pair in pairwise(ends)]

    def _between(self, text: str, first: int, last: int) -> list[int]:
        """Places of the tokens of some of a text's letters."""
        first, last = first + self.before, last + self.before
        return [i for i, (_, (start, stop)) in enumerate(self._tokens(text)) if start < last and stop > first]

    def _tokens(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        whole, most = self.template(text), self.length + self.dropped
        # a template that begins with the special token of the start has it once
        special = not (self.tokenizer.bos_token and whole.startswith(self.tokenizer.bos_token))
        how: dict[str, Any] = {"add_special_tokens": special, "return_offsets_mapping": True}
        read = self.tokenizer(whole, truncation=True, max_length=most, **how)
        return list(zip(read.input_ids, read.offset_mapping, strict=True))[self.dropped :]


def language_sequence(
    tokenizer: Any, length: int, template: Callable[[str], str], *, dropped: int = 0, filled: bool = False
) -> LanguageSequence:
    """The sequence of a tokenizer and a template, whose beginning is measured here."""
    before = len(template(_MARK).partition(_MARK)[0])
    how: dict[str, Any] = {"template": template, "before": before, "dropped": dropped, "filled": filled}
    made = LanguageSequence(tokenizer, length, **how)
    start = sum(stop <= before for _, (_, stop) in made._tokens("#"))
    return LanguageSequence(tokenizer, length, start, **how)
