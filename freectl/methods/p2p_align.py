"""Which target tokens take cross-attention from which source tokens (Prompt-to-Prompt, arXiv 2208.01626)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from freectl.errors import InputError
from freectl.masks import token_positions

Edit = Literal["auto", "replace", "refine"]


@dataclass(frozen=True)
class Alignment:
    """How target tokens take cross-attention from source tokens.

    Attributes:
        matrix: (B, source tokens, target tokens), the map's columns are multiplied by it.
        shared: (B, target tokens), 1 where the source's map is taken, 0 where the edit's own stays.
        factors: (B, target tokens), multiplied to the columns.
    """

    matrix: Tensor
    shared: Tensor
    factors: Tensor

    def to(self, device: torch.device) -> "Alignment":
        """The same on a device."""
        return Alignment(self.matrix.to(device), self.shared.to(device), self.factors.to(device))

    def mix(self, source: Tensor, own: Tensor) -> Tensor:
        """Edited map (B, heads, pixels, target tokens) from the source's and the edit's own."""
        shared, factors = self.shared[:, None, None], self.factors[:, None, None]
        return factors * (shared * (source @ self.matrix[:, None]) + (1 - shared) * own)


def align(tokenizer: Any, sources: Sequence[str], targets: Sequence[str], edit: Edit, reweight: str = "") -> Alignment:
    """Alignment of each target prompt with its source prompt.

    Args:
        tokenizer: the model's; its length is the number of tokens T.
        edit: replace is word for word; refine keeps common tokens; auto is replace where word counts are equal.
        reweight: as `parse_weights` takes it.

    Raises:
        InputError: replace with different word counts, or a word to reweight that the target does not have.
    """
    size = tokenizer.model_max_length
    made = [_align_one(tokenizer, *pair, edit, size) for pair in zip(sources, targets, strict=True)]
    factors = torch.ones(len(targets), size)
    for word, factor in parse_weights(reweight).items():
        for row, text in zip(factors, targets, strict=True):
            row[token_positions(tokenizer, text, word, "--set reweight")] = factor
    return Alignment(torch.stack([matrix for matrix, _ in made]), torch.stack([shared for _, shared in made]), factors)


def _align_one(tokenizer: Any, source: str, target: str, edit: Edit, size: int) -> tuple[Tensor, Tensor]:
    counts = len(source.split()), len(target.split())
    if edit == "replace" and counts[0] != counts[1]:
        raise InputError("--set edit", f"replace, {counts[0]} and {counts[1]} words", "prompts of equal length, refine")
    if edit == "refine" or counts[0] != counts[1]:
        source_ids, target_ids = (tokenizer(text, truncation=True).input_ids for text in (source, target))
        return refine_matrix(source_ids, target_ids, size)
    spans = [word_spans(tokenizer, text, size) for text in (source, target)]
    return replace_matrix(spans[0], spans[1], size), torch.ones(size)


def word_spans(tokenizer: Any, text: str, size: int) -> list[list[int]]:
    """Positions of each word's tokens in the encoded text of `size` tokens, the start token counted."""
    spans, first = [], 1
    for word in text.split():
        last = first + len(tokenizer(word).input_ids) - 2
        spans.append([position for position in range(first, last) if position < size - 1])
        first = last
    return spans


def replace_matrix(source: Sequence[Sequence[int]], target: Sequence[Sequence[int]], size: int) -> Tensor:
    """(size, size): tokens of the n-th word to those of the n-th, evenly where counts differ; the rest in order."""
    matrix = torch.zeros(size, size)
    matrix[0, 0] = 1
    for here, there in zip(source, target, strict=True):
        if len(here) == len(there):
            matrix[list(here), list(there)] = 1
        else:
            for position in here:
                matrix[position, list(there)] = 1 / max(1, len(there))
    ends = [1 + sum(map(len, spans)) for spans in (source, target)]
    for i, j in zip(range(ends[0], size), range(ends[1], size), strict=False):
        matrix[i, j] = 1
    return matrix


def refine_matrix(source: Sequence[int], target: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """(size, size) and (size,): tokens of the longest common subsequence are shared, new tokens are not; padding is."""
    lengths = torch.zeros(len(source) + 1, len(target) + 1, dtype=torch.int64)
    for i in reversed(range(len(source))):
        for j in reversed(range(len(target))):
            longer = torch.maximum(lengths[i + 1, j], lengths[i, j + 1])
            lengths[i, j] = lengths[i + 1, j + 1] + 1 if source[i] == target[j] else longer
    matrix, shared, i, j = torch.zeros(size, size), torch.zeros(size), 0, 0
    while i < len(source) and j < len(target):
        if source[i] == target[j]:
            matrix[i, j], shared[j], i, j = 1, 1, i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1
    for place in range(len(target), size):
        matrix[min(place - len(target) + len(source), size - 1), place], shared[place] = 1, 1
    return matrix, shared


def parse_weights(text: str) -> dict[str, float]:
    """A text such as "fox=2, blue=0.5" as a dict.

    Raises:
        ValueError: a part of another form, or a factor outside -10 to 10.
    """
    weights = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        word, _, factor = (piece.strip() for piece in part.rpartition("="))
        try:
            weights[word] = float(factor)
        except ValueError:
            weights[word] = float("nan")
        if not word or not -10 <= weights[word] <= 10:
            raise ValueError("word=factor, comma separated, each factor from -10 to 10")
    return weights
