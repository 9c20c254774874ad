"""Which target tokens take cross-attention from which source tokens (Prompt-to-Prompt, arXiv 2208.01626)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from freectl.denoising.attention_maps import TextSequence
from freectl.denoising.sampler import Step
from freectl.errors import InputError

Edit = Literal["auto", "replace", "refine"]
Rest = Literal["shifted", "in-place"]
"""Whose maps tokens take behind what is aligned: of the token as far behind it in the source, or at the same place."""


@dataclass(frozen=True)
class Alignment:
    """How target tokens take cross-attention from source tokens.

    Attributes:
        matrix: (B, source tokens, target tokens), the map's columns are multiplied by it.
        shared: (B, target tokens), 1 where the source's map is taken, 0 where the edit's own stays.
        factors: (B, target tokens), multiplied to the columns.
        stops: (B, target tokens), share of the steps up to which a token's column is edited.
    """

    matrix: Tensor
    shared: Tensor
    factors: Tensor
    stops: Tensor

    def to(self, device: torch.device) -> "Alignment":
        """The same on a device."""
        return Alignment(*(getattr(self, one.name).to(device) for one in fields(self)))

    def cut(self, tokens: int) -> "Alignment":
        """The same for shorter embeddings, behind whose end no token counts."""
        if tokens >= self.matrix.shape[-1]:
            return self
        rest = (getattr(self, one.name)[:, :tokens] for one in fields(self)[1:])
        return Alignment(self.matrix[:, :tokens, :tokens], *rest)

    def lengthened(self, tokens: int) -> "Alignment":
        """The same for longer embeddings: what lies behind the tokenizer's length is each its own place's."""
        more = tokens - self.matrix.shape[-1]
        if more <= 0:
            return self
        rows = len(self.matrix)
        matrix = torch.stack([torch.block_diag(one, torch.eye(more)) for one in self.matrix])
        ones = torch.ones(rows, more)
        stops = self.stops[:, -1:].expand(rows, more)
        grown = zip((self.shared, self.factors, self.stops), (ones, ones, stops), strict=True)
        return Alignment(matrix, *(torch.cat(pair, 1) for pair in grown))

    def mix(self, source: Tensor, own: Tensor, step: Step | None = None) -> Tensor:
        """Edited map (B, heads, pixels, target tokens) from the source's and the edit's own.

        Args:
            step: where the loop stands; columns whose share of the steps is over are the edit's own. None = the start.
        """
        shared, factors = self.shared[:, None, None], self.factors[:, None, None]
        mixed = factors * (shared * (source @ self.matrix[:, None]) + (1 - shared) * own)
        if step is None:
            return mixed
        return torch.where(step.index < self.stops[:, None, None] * step.count - 1e-9, mixed, own)


def joined(each: Sequence[Alignment]) -> Alignment:
    """Alignments of stretches of the text that lie one behind the other: no token takes a map of another stretch."""
    matrices = [torch.block_diag(*parts) for parts in zip(*(one.matrix for one in each), strict=True)]
    rest = (torch.cat([getattr(one, name) for one in each], 1) for name in ("shared", "factors", "stops"))
    return Alignment(torch.stack(matrices), *rest)


def align(
    sequence: TextSequence,
    sources: Sequence[str],
    targets: Sequence[str],
    edit: Edit,
    reweight: str = "",
    stop: float = 1.0,
    stops: str = "",
    rest: Rest = "shifted",
) -> Alignment:
    """Alignment of each target prompt with its source prompt.

    Args:
        sequence: the stretch of the text that is aligned; its length is the number of tokens T.
        edit: replace is word for word; refine keeps common tokens; auto is replace where word counts are equal.
        reweight: factors of words, as `parse_weights` takes them.
        stop: share of the steps up to which columns are edited. stops: other shares of single words.
        rest: behind the aligned tokens; "in-place" is the published mapper's, whose replace aligns up to the last word
            that differs.

    Raises:
        InputError: replace with different word counts, or a word that the target does not have.
    """
    made = [_moved(sequence, *pair, edit, rest) for pair in zip(sources, targets, strict=True)]
    factors = _by_word(sequence, targets, 1.0, parse_weights(reweight), "--set reweight")
    until = _by_word(sequence, targets, stop, parse_weights(stops, 0, 1), "--set cross_words")
    matrices, shared = (torch.stack(parts) for parts in zip(*made, strict=True))
    return Alignment(matrices, shared, factors, until)


def _by_word(
    sequence: TextSequence, texts: Sequence[str], default: float, values: Mapping[str, float], option: str
) -> Tensor:
    """(B, T): `default`, and the values of single words at their tokens."""
    found = torch.full((len(texts), sequence.length), default)
    for word, value in values.items():
        for row, text in zip(found, texts, strict=True):
            row[sequence.positions(text, word, option)] = value
    return found


def kind_of(edit: Edit, source: str, target: str) -> Literal["replace", "refine"]:
    """What an edit is between two prompts.

    Raises:
        InputError: replace with different word counts.
    """
    counts = len(source.split()), len(target.split())
    if edit == "replace" and counts[0] != counts[1]:
        raise InputError("--set edit", f"replace, {counts[0]} and {counts[1]} words", "prompts of equal length, refine")
    return "refine" if edit == "refine" or counts[0] != counts[1] else "replace"


def explained(tokenizer: Any, source: str, target: str, alignment: Alignment) -> list[dict[str, Any]]:
    """For each token of the target prompt: the source tokens whose map it takes, with shares, and its factor."""
    named = [tokenizer.convert_ids_to_tokens(tokenizer(text, truncation=True).input_ids) for text in (source, target)]
    found = []
    for place in range(1, len(named[1]) - 1):
        taken = alignment.matrix[0, :, place] * alignment.shared[0, place]
        sources = [
            {"position": i, "token": named[0][i], "share": round(float(taken[i]), 4)}
            for i in range(1, len(named[0]) - 1)
            if taken[i] > 0
        ]
        found.append(
            {
                "position": place,
                "token": named[1][place],
                "map": "source" if sources else "own",
                "sources": sources,
                "factor": float(alignment.factors[0, place]),
                "stop": round(float(alignment.stops[0, place]), 4),
            }
        )
    return found


def _moved(sequence: TextSequence, source: str, target: str, edit: Edit, rest: Rest) -> tuple[Tensor, Tensor]:
    """As `_align_one`, where padding stands in front."""
    matrix, shared = _align_one(sequence, source, target, edit, rest)
    fronts = sequence.front(source), sequence.front(target)
    return (matrix.roll(fronts, (0, 1)), shared.roll(fronts[1])) if any(fronts) else (matrix, shared)


def _align_one(sequence: TextSequence, source: str, target: str, edit: Edit, rest: Rest) -> tuple[Tensor, Tensor]:
    size = sequence.length
    if kind_of(edit, source, target) == "refine":
        return refine_matrix(sequence.ids(source), sequence.ids(target), size, rest)
    spans = [sequence.word_spans(text) for text in (source, target)]
    if rest == "in-place":
        differing = [i for i, (a, b) in enumerate(zip(source.split(), target.split(), strict=True), 1) if a != b]
        spans = [one[: max(differing, default=0)] for one in spans]
    return replace_matrix(spans[0], spans[1], size, rest, sequence.start), torch.ones(size)


def replace_matrix(
    source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], size: int, rest: Rest = "shifted", start: int = 1
) -> Tensor:
    """(size, size): tokens of the n-th word to those of the n-th, evenly where counts differ; the rest in order.

    Args:
        start: special tokens in front, each its own.
    """
    matrix = torch.zeros(size, size)
    matrix[range(start), range(start)] = 1
    for here, there in zip(source, target, strict=True):
        if len(here) == len(there):
            matrix[list(here), list(there)] = 1
        else:
            for position in here:
                matrix[position, list(there)] = 1 / max(1, len(there))
    ends = [start + sum(map(len, spans)) for spans in (source, target)]
    for i, j in zip(range(ends[0], size), range(ends[1], size), strict=False):
        matrix[j if rest == "in-place" else i, j] = 1
    return matrix


def refine_matrix(
    source: Sequence[int], target: Sequence[int], size: int, rest: Rest = "shifted"
) -> tuple[Tensor, Tensor]:
    """(size, size) and (size,): tokens of the longest common subsequence are shared, new tokens are not; padding is."""
    matrix, shared = torch.zeros(size, size), torch.zeros(size)
    if rest == "in-place":  # the published aligner walks back from the end
        ends = len(source) - 1, len(target) - 1
        pairs = [(ends[0] - i, ends[1] - j) for i, j in _common(source[::-1], target[::-1], late=True)]
    else:
        pairs = _common(source, target, late=False)
    for i, j in pairs:
        matrix[i, j], shared[j] = 1, 1
    shift = len(source) - len(target) if rest == "shifted" else 0
    for place in range(len(target), size):
        matrix[min(place + shift, size - 1), place], shared[place] = 1, 1
    return matrix, shared


def _common(source: Sequence[int], target: Sequence[int], late: bool) -> list[tuple[int, int]]:
    """Pairs of places of a longest common subsequence, walked from the start; `late`: met as late as its length allows.

    Where either sequence may go on, the target does if `late`, else the source.
    """
    lengths = torch.zeros(len(source) + 1, len(target) + 1, dtype=torch.int64)
    for i in reversed(range(len(source))):
        for j in reversed(range(len(target))):
            longer = torch.maximum(lengths[i + 1, j], lengths[i, j + 1])
            lengths[i, j] = lengths[i + 1, j + 1] + 1 if source[i] == target[j] else longer
    pairs, i, j = [], 0, 0
    while i < len(source) and j < len(target):
        skips = lengths[i, j] == lengths[i + 1, j], lengths[i, j] == lengths[i, j + 1]
        if source[i] == target[j] and not (late and any(skips)):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif skips[1] if late else not skips[0]:
            j += 1
        else:
            i += 1
    return pairs


def parse_weights(text: str, low: float = -10, high: float = 10) -> dict[str, float]:
    """A text such as "fox=2, blue=0.5" as a dict.

    Raises:
        ValueError: a part of another form, or a number outside `low` to `high`.
    """
    weights = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        word, _, factor = (piece.strip() for piece in part.rpartition("="))
        try:
            weights[word] = float(factor)
        except ValueError:
            weights[word] = float("nan")
        if not word or not low <= weights[word] <= high:
            raise ValueError(f"word=factor, comma separated, each factor from {low:g} to {high:g}")
    return weights
