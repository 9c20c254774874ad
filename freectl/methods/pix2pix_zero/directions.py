"""Edit directions in text space: what changes between two words, averaged over many sentences (arXiv 2302.03027)."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import product
from math import gcd
from typing import Any

import torch
import yaml
from torch import Tensor

from freectl.denoising.sampler import Prompt
from freectl.errors import InputError
from freectl.files.cache import content_key
from freectl.files.data import prompts_file
from freectl.models.engine import Engine

BATCH = 50
"""Sentences encoded at once."""
FREE = "word"
"""The place of a pattern that takes any word."""
Pair = tuple[str, str]
Sentences = tuple[list[str], list[str]]


def parse_pairs(text: str) -> list[Pair]:
    """ "cat=dog, red=blue" as [("cat", "dog"), ("red", "blue")].

    Raises:
        ValueError: a part without words on both sides of one "=".
    """
    pairs = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        source, equals, target = (word.strip() for word in part.partition("="))
        if not equals or not source or not target or "=" in target:
            raise ValueError("source=target, comma separated, such as cat=dog")
        pairs.append((source, target))
    return pairs


def differing(source: str, target: str) -> list[Pair] | None:
    """Words that one text has in the place of the other's; None where words were added or left out."""
    a, b = (re.findall(r"[\w'-]+", text.lower()) for text in (source, target))
    pairs: list[Pair] = []
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind in ("insert", "delete"):
            return None
        if kind == "replace":
            pairs.append((" ".join(a[i:j]), " ".join(b[k:m])))
    return pairs


def templates(family: str) -> dict[str, Any]:
    """The pattern of a family and its filler lists."""
    return yaml.safe_load(prompts_file("directions.yaml").read_text(encoding="utf-8"))[family]


def place_of(pair: Pair, entry: Mapping[str, Any]) -> str | None:
    """The place of the pattern that takes both words; None if no place does."""
    for name, fillers in entry.items():
        if name != "pattern" and all(word in fillers for word in pair):
            return name
    return FREE if f"{{{FREE}}}" in entry["pattern"] else None


def split(pair: Pair, entry: Mapping[str, Any]) -> list[Pair]:
    """A pair of phrases word by word, if every word has its counterpart in a filler list."""
    singles = list(zip(pair[0].split(), pair[1].split(), strict=False))
    equal = len(pair[0].split()) == len(pair[1].split())
    if equal and all(place_of(one, entry) not in (None, FREE) for one in singles):
        return singles
    return [pair]


def sentences(pair: Pair, entry: Mapping[str, Any], count: int) -> Sentences:
    """Up to `count` sentences with the source word, and the same with the target word, spread over all there are.

    Raises:
        InputError: the family's pattern has no place for the words.
    """
    place = place_of(pair, entry)
    if place is None:
        kinds = "; ".join(", ".join(fillers) for name, fillers in entry.items() if name != "pattern")
        raise InputError("--set direction", f"{pair[0]}={pair[1]}", f"two words of one kind: {kinds}")
    others = [name for name in entry if name not in ("pattern", place)]
    filled = [dict(zip(others, words, strict=True)) for words in product(*(entry[name] for name in others))]
    # a stride that shares no factor with the total visits all, and any first few vary in every place
    stride = next(i for i in range(round(0.618 * len(filled)), 2 * len(filled) + 2) if gcd(i, len(filled)) == 1)
    chosen = [filled[i * stride % len(filled)] for i in range(min(count, len(filled)))]
    source, target = ([_article(entry["pattern"].format(**one, **{place: word})) for one in chosen] for word in pair)
    return source, target


def _article(sentence: str) -> str:
    return re.sub(r"\ba(?= [aeiou])", "an", sentence)


def sentence_sets(source: str, target: str, given: Sequence[Pair], family: str, count: int) -> list[Sentences]:
    """Pairs of sentence sets whose directions add up to the edit.

    Args:
        source, target: the two prompts, compared where no pairs are `given`; where they do not differ word for word,
            or in words that the family's pattern has no place for, each is a set by itself.
    """
    entry = templates(family)
    pairs = list(given) or differing(source, target)
    pairs = [one for pair in pairs or () for one in split(pair, entry)]
    if not pairs or (not given and any(place_of(pair, entry) is None for pair in pairs)):
        return [([source], [target])]
    return [sentences(pair, entry, count) for pair in pairs]


def direction(engine: Engine, sets: Sequence[Sentences], on_batch: Callable[[], None] | None = None) -> Prompt:
    """Mean embedding of the target sentences minus that of the source's, summed over the sets; batch 1, cached.

    Returns:
        A prompt to be added to another: `cond` (1, tokens, C), and for SDXL pooled "text_embeds" (1, C).
    """
    key = content_key(what="direction", model=engine.model_key(), size=list(engine.size), sets=[list(s) for s in sets])

    def build() -> tuple[dict[str, Tensor], dict]:
        parts = {"cond": torch.zeros(())}
        for source, target in sets:
            for sign, texts in ((-1.0, source), (1.0, target)):
                for name, mean in _mean(engine, texts, on_batch).items():
                    parts[name] = parts.get(name, torch.zeros(())) + sign * mean
        return parts, {"sentences": sum(len(source) for source, _ in sets)}

    tensors = {name: t.to(engine.device, engine.dtype) for name, t in engine.cached("direction", key, build).items()}
    added = {"cond": {"text_embeds": tensors["pooled"]}} if "pooled" in tensors else {}
    return Prompt(tensors["cond"], None, added)  # type: ignore[arg-type]


def _mean(engine: Engine, texts: Sequence[str], on_batch: Callable[[], None] | None) -> dict[str, Tensor]:
    """Mean embeddings (1, ...), fp32 on the CPU."""
    total: dict[str, Tensor] = {}
    for first in range(0, len(texts), BATCH):
        prompt = engine.encode_prompt(texts[first : first + BATCH])
        parts = {"cond": prompt.cond}
        if "cond" in prompt.added:
            parts["pooled"] = prompt.added["cond"]["text_embeds"]
        for name, part in parts.items():
            total[name] = total.get(name, torch.zeros(())) + part.float().sum(0, keepdim=True).cpu()
        if on_batch is not None:
            on_batch()
    return {name: part / len(texts) for name, part in total.items()}
