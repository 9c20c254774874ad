"""Prompt-to-Prompt's local blend (arXiv 2208.01626, section 4): change the picture only where the words are."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from freectl.denoising.attention_maps import WordMaps, word_mask
from freectl.denoising.sampler import Lane, Step

GROW = 3
"""Side of the max-pooling window of the published code."""
OPTION = "--set blend"


def parse_blend(text: str) -> list[tuple[str, str]]:
    """A text such as "fox=cat, hat" as pairs of words of the source and of the target prompt; one word is both.

    Raises:
        ValueError: a part without words.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        source, equals, target = (piece.strip() for piece in part.partition("="))
        pairs.append((source, target if equals else source))
        if not (source or target):
            raise ValueError("source words=target words, comma separated; one side may be empty")
    return pairs


class LocalBlend:
    """Keeps the source outside the union of the words' masks in source and edit.

    Args:
        find: token positions of words in a text, given both and an option, as `Engine.token_positions`.
        words: as `parse_blend` gives them. sources, targets: the prompts, B each.
        layers: names of the layers whose maps count.
        start: share of the steps before which nothing is blended. threshold: as `attention_maps.word_mask` takes it.

    Raises:
        InputError: a word that its prompt does not have.
    """

    def __init__(
        self,
        find: Callable[[str, str, str], list[int]],
        words: Sequence[tuple[str, str]],
        sources: Sequence[str],
        targets: Sequence[str],
        layers: Sequence[str],
        *,
        start: float,
        threshold: float,
    ) -> None:
        self.layers, self.start, self.threshold = frozenset(layers), start, threshold
        sides = {"source": (sources, [a for a, _ in words if a]), "edit": (targets, [b for _, b in words if b])}
        self.positions = {
            name: [[p for word in chosen for p in find(text, word, OPTION)] for text in texts]
            for name, (texts, chosen) in sides.items()
            if chosen
        }
        self.maps = WordMaps()

    def record(self, name: str, attention: Tensor) -> None:
        """Add one layer's maps (B, heads, pixels, tokens) of lane `name`, as they act."""
        if name in self.positions:
            each = zip(attention, self.positions[name], strict=True)
            self.maps.add(name, torch.stack([one[..., places].sum(-1).mean(0) for one, places in each]))

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Union of both sides' masks so far, (B, h, w) of 0 and 1; `size` = the latents' (h, w)."""
        masks = [
            word_mask(self.maps.mean(name, size), threshold=self.threshold, scale="max", grow=GROW, size=size)
            for name in self.positions
        ]
        return torch.stack(masks).amax(0)

    def apply(self, step: Step, lanes: Mapping[str, Lane], source: Tensor) -> None:
        """x = x_source + m (x - x_source) for lane "edit", from the starting step on."""
        if step.within(self.start, 1):
            edit = lanes["edit"]
            mask = self.mask((edit.latents.shape[-2], edit.latents.shape[-1]))[:, None].to(edit.latents)
            source = source.to(edit.latents)
            edit.latents = source + mask * (edit.latents - source)
