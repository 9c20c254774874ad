"""MasaCtrl's masks (arXiv 2304.08465): object reads object and background reads background."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.attention_maps import WordMaps, attention_maps, token_grid, word_mask
from freectl.denoising.injection import EDIT, SOURCE, Injection, SourceInjector, row_pairs, row_places
from freectl.denoising.sampler import Lane, RowKey, Step, row_keys
from freectl.denoising.taps import Edit
from freectl.methods.pix2pix_zero.directions import Pair

OPTION = "--set words"


class MaskedInjector(SourceInjector):
    """Mutual self-attention within two classes of places: those of the words, and the rest.

    Masks come from the cross-attention of the words, a running mean over layers and steps in which the source runs;
    each layer uses what has been seen before it, and has no mask if nothing has. A given mask is the source's, and the
    edit's too where it has no words.

    Args:
        levels: timestep -> latents (B, C, h, w) of the source. layers: the shared self-attentions. start: as a share.
        word_layers: cross-attentions, of one resolution, whose maps count.
        positions: lane -> token positions of the words, an entry a picture. threshold: as `word_mask` takes it.
        given: (B, h, w) of 0 and 1 at the latents' size, in place of the source's words.
    """

    def __init__(
        self,
        levels: Mapping[float, Tensor],
        layers: Sequence[str],
        start: float,
        word_layers: Sequence[str],
        positions: Mapping[str, Sequence[Sequence[int]]],
        threshold: float,
        given: Tensor | None = None,
    ) -> None:
        super().__init__(levels, [Injection(tuple(layers), start=start)])
        self.word_layers, self.positions, self.threshold = word_layers, positions, threshold
        self.maps = WordMaps()
        self.given = {} if given is None else dict.fromkeys({SOURCE, EDIT} - positions.keys(), given)

    def edits(self, step: Step, lanes: Mapping[str, Lane], network: nn.Module) -> dict[str, Edit]:
        """Watches on queries, keys and values; new outputs of the shared layers."""
        places, (rows, columns) = row_places(lanes, row_keys(lanes)), lanes[EDIT].latents.shape[-2:]
        pairs, size = row_pairs(lanes), (rows, columns)
        edits: dict[str, Edit] = {}
        for layer in self.word_layers:
            seen: dict[str, Tensor] = {}
            edits[f"{layer}.to_q"] = partial(_watch, seen, "q")
            edits[f"{layer}.to_k"] = partial(self._record, network.get_submodule(layer), seen, places)
        for layer in self.sites(step):
            seen = {}
            edits |= {f"{layer}.to_{letter}": partial(_watch, seen, letter) for letter in "qkv"}
            edits[layer] = partial(self._mutual, network.get_submodule(layer), seen, places, pairs, size)
        return edits

    def mask(self, lane: str, tokens: int, size: tuple[int, int]) -> Tensor:
        """Where the lane's words are, (B, tokens) of 0 and 1; `size` = the latents' (h, w)."""
        grid = token_grid(tokens, (int(size[0]), int(size[1])))
        if lane in self.given:
            return nn.functional.interpolate(self.given[lane][:, None], size=grid, mode="nearest").flatten(1)
        maps = self.maps.mean(lane, size)
        found = word_mask(maps, threshold=self.threshold, size=grid, smooth=True)
        return found.flatten(1)

    def _record(
        self, layer: nn.Module, seen: Mapping[str, Tensor], places: Mapping[RowKey, slice], k: Tensor
    ) -> Tensor:
        for lane, each in self.positions.items():
            rows = places[lane, "cond"]
            pairs = zip(seen["q"][rows], k[rows], each, strict=True)
            self.maps.add(lane, torch.cat([attention_maps(layer, a[None], b[None], one) for a, b, one in pairs]))
        return k

    def _mutual(
        self,
        layer: Any,
        seen: Mapping[str, Tensor],
        places: Mapping[RowKey, slice],
        pairs: Mapping[RowKey, RowKey],
        size: tuple[int, int],
        output: Tensor,
    ) -> Tensor:
        allowed = None
        if all(lane in self.given or lane in self.maps for lane in (EDIT, SOURCE)):
            own, other = (self.mask(lane, output.shape[1], size) for lane in (EDIT, SOURCE))
            allowed = same_class(own, other)[:, None]
        edited = output.clone()
        for target, source in pairs.items():
            q, k, v = (
                _heads(seen[letter][places[rows]], layer.heads)
                for letter, rows in zip("qkv", (target, source, source), strict=True)
            )
            hidden = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=float(layer.scale))
            projected = layer.to_out[0](hidden.transpose(1, 2).flatten(2).to(output.dtype))
            edited[places[target]] = projected / layer.rescale_output_factor
        return edited


def same_class(own: Tensor, other: Tensor) -> Tensor:
    """Which places of the source each place of the edit may read, (B, tokens, tokens) of bool.

    Those of its own class; all, where the source has none of that class.

    Args:
        own, other: masks (B, tokens) of edit and source, 0 and 1.
    """
    allowed = own[:, :, None] == other[:, None, :]
    return allowed | ~allowed.any(-1, keepdim=True)


def positions_of(
    find: Callable[[str, str, str], list[int]], pairs: Sequence[Pair], sources: Sequence[str], targets: Sequence[str]
) -> dict[str, Any]:
    """Token positions of the words in each source prompt and each prompt, by lane.

    Args:
        find: `Engine.token_positions`.

    Raises:
        InputError: a word that its prompt does not have.
    """
    sides = {SOURCE: (sources, [a for a, _ in pairs]), EDIT: (targets, [b for _, b in pairs])}
    return {
        lane: [[p for word in words for p in find(text, word, OPTION)] for text in texts]
        for lane, (texts, words) in sides.items()
    }


def _watch(seen: dict[str, Tensor], letter: str, value: Tensor) -> Tensor:
    seen[letter] = value
    return value


def _heads(value: Tensor, heads: int) -> Tensor:
    return value.float().unflatten(-1, (heads, -1)).transpose(1, 2)
