"""Prompt-to-Prompt's attention maps in the loop (arXiv 2208.01626): which are edited at a step, and how."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from freectl.denoising.attention_layers import WHOLE, AttentionLayer, Part
from freectl.denoising.injection import (
    EDIT,
    SOURCE,
    Injection,
    SourceInjector,
    copy_rows,
    parts_of,
    row_places,
    text_of,
)
from freectl.denoising.sampler import Denoiser, Lane, RowKey, Step, row_keys
from freectl.denoising.taps import Edit, chained
from freectl.methods.observer import NOBODY, Observer
from freectl.methods.p2p.align import Alignment
from freectl.methods.p2p.blend import LocalBlend

ROW: RowKey = (EDIT, "cond")
FROM: RowKey = (SOURCE, "cond")


class MapInjector(SourceInjector):
    """Edits the attention maps of the edit's conditional row; without `levels` the source lane is sampled freely.

    A self-attention map is replaced by replacing its queries and keys. With a local blend the source runs in every
    step, since its maps and latents are needed.

    Args:
        crossed: layers that attend to the text. Those whose name is a site of an injection are edited.
        self_area: largest self-attention maps that are replaced, as a share of the latent's pixels.
        nulls: timestep -> (B, tokens, C), the edit's unconditional embeddings.
        blend: local blend. below: timestep -> the source's latents behind that step; without them the lane's own.
        observer: is told of the maps of the layers `observed` wherever they are read anyway.
    """

    def __init__(
        self,
        levels: Mapping[float, Tensor],
        injections: Sequence[Injection],
        alignment: Alignment,
        self_area: float,
        crossed: Sequence[AttentionLayer] = (),
        *,
        nulls: Mapping[float, Tensor] | None = None,
        blend: LocalBlend | None = None,
        below: Mapping[float, Tensor] | None = None,
        observer: Observer = NOBODY,
        observed: Collection[str] = (),
    ) -> None:
        super().__init__(levels, injections)
        self.alignment, self.self_area, self.nulls = alignment, self_area, nulls or {}
        self.crossed = {layer.name: layer for layer in crossed}
        self.blend, self.below = blend, below or {}
        self.observer, self.observed = observer, frozenset(observed)

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """All lanes; the source only if it is copied from, or blended."""
        return tuple(lanes) if self.blend is not None else super().active(step, lanes)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Hold the source on its levels, if it has any; give the edit the step's unconditional embedding."""
        if self.levels:
            super().before(step, lanes)
        edit = lanes[EDIT]
        if self.nulls and edit.prompt.uncond is not None:
            edit.prompt = replace(edit.prompt, uncond=self.nulls[step.timestep])

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Blend, if asked to."""
        if self.blend is not None:
            self.blend.apply(step, lanes, self.below.get(step.timestep, lanes[SOURCE].latents))

    def edits(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Edit]:
        """Edits of self-attention queries and keys, and of whole layers that attend to the text."""
        latents, places = lanes[EDIT].latents, row_places(lanes, row_keys(lanes))
        size, parts = (latents.shape[-2], latents.shape[-1]), parts_of(denoiser, latents)
        text = text_of([(lanes[name].prompt, half) for name, half in row_keys(lanes)])
        limit = self.self_area * size[0] * size[1]
        sites = self.sites(step)
        copied: dict[str, Edit] = {
            site: partial(_copy_small, places=places, limit=limit, part=parts.get(site, WHOLE))
            for site in sites
            if site not in self.crossed
        }
        groups = [copied]
        for name, layer in self.crossed.items():
            told: list[Callable[[str, Tensor], None]] = []
            if self.blend is not None and name in self.blend.layers:
                told.append(self.blend.record)
            if name in sites and name in self.observed:
                told.append(self.observer.attended)
            if name in sites or told:
                alignment = self.alignment if name in sites else None
                made = CrossMapEdit(denoiser.network, layer, places, size, step, alignment, told)
                groups.append(made.edits(text))
        return chained(*groups)


def _copy_small(value: Tensor, places: Mapping[RowKey, slice], limit: float, part: Part) -> Tensor:
    return copy_rows(value, places, {ROW: FROM}, part) if part.tokens(value) <= limit else value


class CrossMapEdit:
    """Edits one layer that attends to the text: its output changes by what the map's change adds.

    Args:
        layer: where the text's columns of the softmax are the map.
        places: rows of the stacked batch. size: the latents' (h, w).
        alignment: how the map is edited; None = not at all.
        told: are given each lane's map (B, heads, pixels, tokens) as it acts, as `AttentionLayer.shares` has it.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: AttentionLayer,
        places: Mapping[RowKey, slice],
        size: tuple[int, int],
        step: Step,
        alignment: Alignment | None,
        told: Sequence[Callable[[str, Tensor], None]] = (),
    ) -> None:
        self.network, self.layer, self.size = network, layer, size
        self.step, self.alignment, self.told = step, alignment, told
        self.row, self.source = places[ROW], places[FROM]

    def edits(self, text: Tensor | None = None) -> dict[str, Edit]:
        """For `freectl.denoising.taps.tap`: watch the layer's projections, change its output; `text` as it takes it."""
        return self.layer.watched(self._apply, text)

    def _apply(self, seen: Mapping[str, Tensor], output: Tensor) -> Tensor:
        network, layer, size = self.network, self.layer, self.size
        own, source = (layer.weights(network, seen, rows, size) for rows in (self.row, self.source))
        alignment = None if self.alignment is None else self.alignment.cut(own.shape[-1])
        acting = own if alignment is None else alignment.mix(source, own, self.step)
        for tell in self.told:
            tell(SOURCE, layer.shares(source))
            tell(EDIT, layer.shares(acting))
        if self.alignment is None:
            return output
        edited = output.clone()
        here = layer.of_picture(edited, self.row, size)
        here.add_(layer.added(network, acting - own, seen, self.row, size).to(output.dtype))
        return edited
