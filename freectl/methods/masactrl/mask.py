"""MasaCtrl's masks (arXiv 2304.08465): object reads object and background reads background."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer, picture_sites
from freectl.denoising.attention_maps import WordMaps, layer_map, token_grid, word_mask
from freectl.denoising.injection import (
    EDIT,
    SOURCE,
    Injection,
    SourceInjector,
    copies,
    parts_of,
    row_pairs,
    row_places,
    text_of,
)
from freectl.denoising.sampler import Denoiser, Lane, RowKey, Step, row_keys
from freectl.denoising.taps import Edit, chained
from freectl.methods.pix2pix_zero.directions import Pair

OPTION = "--set words"


class MaskedInjector(SourceInjector):
    """Mutual self-attention within two classes of places: those of the words, and the rest.

    Masks come from the attention to the words, a running mean over layers and steps in which the source runs; each
    layer uses what has been seen before it, and has no mask if nothing has. A given mask is the source's, and the
    edit's too where it has no words. Where picture and text are attended to together, text reads the source's picture
    as without masks, and every place reads the edit's text.

    Args:
        levels: timestep -> latents (B, C, h, w) of the source. layers: that share. start: as a share.
        word_layers: of one resolution, whose maps count.
        positions: lane -> token positions of the words, an entry a picture. threshold: as `word_mask` takes it.
        given: (B, h, w) of 0 and 1 at the latents' size, in place of the source's words.
    """

    def __init__(
        self,
        levels: Mapping[float, Tensor],
        layers: Sequence[AttentionLayer],
        start: float,
        word_layers: Sequence[AttentionLayer],
        positions: Mapping[str, Sequence[Sequence[int]]],
        threshold: float,
        given: Tensor | None = None,
    ) -> None:
        super().__init__(levels, [Injection(tuple(layer.name for layer in layers), start=start)])
        self.layers, self.word_layers = {layer.name: layer for layer in layers}, word_layers
        self.positions, self.threshold = positions, threshold
        self.maps = WordMaps()
        self.given = {} if given is None else dict.fromkeys({SOURCE, EDIT} - positions.keys(), given)

    def edits(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Edit]:
        """Watches on queries, keys and values; new outputs of the shared layers."""
        latents, network = lanes[EDIT].latents, denoiser.network
        places, size = row_places(lanes, row_keys(lanes)), (latents.shape[-2], latents.shape[-1])
        pairs, text = row_pairs(lanes), text_of([(lanes[name].prompt, half) for name, half in row_keys(lanes)])
        groups = [one.watched(partial(self._record, network, one, places, size), text) for one in self.word_layers]
        for name in self.sites(step):
            layer = self.layers[name]
            # the source's picture as it is, for whoever reads it beside the edit's picture
            shared = picture_sites([layer], "kv") if layer.text else ()
            groups.append(layer.watched(partial(self._mutual, network, layer, places, pairs, size), text))
            groups.append(copies(shared, places, pairs, parts_of(denoiser, latents)))
        return chained(*groups)

    def mask(self, lane: str, tokens: int, size: tuple[int, int]) -> Tensor:
        """Where the lane's words are, (B, tokens) of 0 and 1; `size` = the latents' (h, w)."""
        grid = token_grid(tokens, (int(size[0]), int(size[1])))
        if lane in self.given:
            return nn.functional.interpolate(self.given[lane][:, None], size=grid, mode="nearest").flatten(1)
        maps = self.maps.mean(lane, size)
        found = word_mask(maps, threshold=self.threshold, size=grid, smooth=True)
        return found.flatten(1)

    def _record(
        self,
        network: nn.Module,
        layer: AttentionLayer,
        places: Mapping[RowKey, slice],
        size: tuple[int, int],
        seen: Mapping[str, Tensor],
        output: Tensor,
    ) -> Tensor:
        for lane, each in self.positions.items():
            rows = places[lane, "cond"]
            alone = [slice(row, row + 1) for row in range(rows.start, rows.stop)]
            pairs = zip(alone, each, strict=True)
            self.maps.add(lane, torch.cat([layer_map(layer, network, seen, row, one, size) for row, one in pairs]))
        return output

    def _mutual(
        self,
        network: nn.Module,
        layer: AttentionLayer,
        places: Mapping[RowKey, slice],
        pairs: Mapping[RowKey, RowKey],
        size: tuple[int, int],
        seen: Mapping[str, Tensor],
        output: Tensor,
    ) -> Tensor:
        allowed, edited = None, output.clone()
        if all(lane in self.given or lane in self.maps for lane in (EDIT, SOURCE)):
            tokens = layer.of_picture(output, slice(None), size).shape[1]
            allowed = same_class(*(self.mask(lane, tokens, size) for lane in (EDIT, SOURCE)))
        for target, source in pairs.items():
            own = layer.of_picture(edited, places[target], size)
            read = partial(layer.read, network, seen, places[target], places[source], size)
            if not layer.beside:
                own.copy_(read(allowed))
            elif allowed is not None:  # the copies have made it read the source, all of it
                own.add_((read(allowed) - read(None)).to(own.dtype))
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
