"""Prompt-to-Prompt's attention maps in the loop (arXiv 2208.01626): which are edited at a step, and how."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.injection import EDIT, SOURCE, Injection, SourceInjector, copy_rows, row_places
from freectl.denoising.sampler import Lane, RowKey, Step, row_keys
from freectl.denoising.taps import Edit
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
        *,
        nulls: Mapping[float, Tensor] | None = None,
        blend: LocalBlend | None = None,
        below: Mapping[float, Tensor] | None = None,
        observer: Observer = NOBODY,
        observed: Collection[str] = (),
    ) -> None:
        super().__init__(levels, injections)
        self.alignment, self.self_area, self.nulls = alignment, self_area, nulls or {}
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

    def edits(self, step: Step, lanes: Mapping[str, Lane], network: nn.Module) -> dict[str, Edit]:
        """Edits of self-attention queries and keys, and of whole cross-attention layers."""
        places = row_places(lanes, row_keys(lanes))
        limit = self.self_area * lanes[EDIT].latents.shape[-1] * lanes[EDIT].latents.shape[-2]
        sites = self.sites(step)
        crossed = {site for site in sites if site.endswith(".attn2")}
        watched = self.blend.layers if self.blend is not None else frozenset()
        edits: dict[str, Edit] = {
            site: partial(_copy_small, places=places, limit=limit) for site in sites if site not in crossed
        }
        for site in sorted(crossed | watched):
            alignment = self.alignment if site in crossed else None
            told: list[Callable[[str, Tensor], None]] = []
            if self.blend is not None and site in watched:
                told.append(self.blend.record)
            if site in self.observed:
                told.append(self.observer.attended)
            edits |= CrossMapEdit(network.get_submodule(site), places, step, alignment, told).edits(site)
        return edits


def _copy_small(value: Tensor, places: Mapping[RowKey, slice], limit: float) -> Tensor:
    return copy_rows(value, places, {ROW: FROM}) if value.shape[1] <= limit else value


class CrossMapEdit:
    """Edits one cross-attention layer: its output changes by what the map's change adds.

    Args:
        layer: the diffusers `Attention`.
        places: rows of the stacked batch.
        alignment: how the map is edited; None = not at all.
        told: are given each lane's map (B, heads, pixels, tokens) as it acts.
    """

    def __init__(
        self,
        layer: Any,
        places: Mapping[RowKey, slice],
        step: Step,
        alignment: Alignment | None,
        told: Sequence[Callable[[str, Tensor], None]] = (),
    ) -> None:
        self.layer, self.step, self.alignment, self.told = layer, step, alignment, told
        self.row, self.source = places[ROW], places[FROM]
        self._seen: dict[str, Tensor] = {}

    def edits(self, site: str) -> dict[str, Edit]:
        """For `freectl.denoising.taps.tap`: watch the layer's projections, change its output."""
        return {f"{site}.to_{letter}": partial(self._watch, letter) for letter in "qkv"} | {site: self._apply}

    def _watch(self, letter: str, value: Tensor) -> Tensor:
        self._seen[letter] = value
        return value

    def _apply(self, output: Tensor) -> Tensor:
        own, source = self._map(self.row), self._map(self.source)
        acting = own if self.alignment is None else self.alignment.mix(source, own, self.step)
        for tell in self.told:
            tell(SOURCE, source)
            tell(EDIT, acting)
        if self.alignment is None:
            return output
        change = acting - own
        hidden = (change @ self._heads(self._seen["v"][self.row])).transpose(1, 2).flatten(2).to(output.dtype)
        project = self.layer.to_out[0]
        # the projection is linear up to its bias, so the change goes through it alone: what adapters add stays
        added = (project(hidden) - project(torch.zeros_like(hidden))) / self.layer.rescale_output_factor
        edited = output.clone()
        edited[self.row] = output[self.row] + added
        return edited

    def _map(self, rows: slice) -> Tensor:
        """Attention of the rows, (B, heads, pixels, tokens)."""
        q, k = (self._heads(self._seen[letter][rows]) for letter in "qk")
        return (q @ k.transpose(-1, -2) * self.layer.scale).softmax(-1)

    def _heads(self, value: Tensor) -> Tensor:
        return value.float().unflatten(-1, (self.layer.heads, -1)).transpose(1, 2)
