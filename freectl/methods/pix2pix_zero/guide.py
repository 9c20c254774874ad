"""pix2pix-zero's guided step (arXiv 2302.03027, section 3.2): cross-attention that stays the source's."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.cost import Cost
from freectl.denoising.grad import frozen
from freectl.denoising.injection import EDIT, SOURCE, SourceInjector, projections, row_places
from freectl.denoising.sampler import Denoiser, Half, Lane, Prompt, RowKey, Step, of_lane, row_keys
from freectl.denoising.taps import tap


class CrossAttentionGuide(SourceInjector):
    """Keeps the source lane's cross-attention maps of a step, and moves the edit's latents until its own come nearer.

    Args:
        layers: the cross-attentions whose maps are kept.
        amount: step of the guidance on the latents; 0 leaves the edit free.
        shared: both halves of the edit go on from one moved latent, rather than each from its own.
        levels: timestep -> latents (B, C, h, w) on which the source is held; empty = it is sampled.
        cost: counts backward rows.

    Attributes:
        trace: loss (mean over the batch) at each step. non_finite: steps whose gradient was thrown away.
    """

    def __init__(
        self, layers: Sequence[str], amount: float, shared: bool, levels: Mapping[float, Tensor], cost: Cost
    ) -> None:
        super().__init__(levels, ())
        self.amount, self.shared, self.cost = amount, shared, cost
        self.layers = list(layers)
        self.projections = projections(self.layers, "qk")
        self.trace: list[dict[str, float]] = []
        self.non_finite = 0

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """All lanes; the source only if it is guided by."""
        return tuple(name for name in lanes if name != SOURCE or self.amount > 0)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Hold the source on its levels, if it has any."""
        if self.levels:
            super().before(step, lanes)

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs; the edit's is that of its moved latents, which its lane holds from now on."""
        source = {name: lane for name, lane in lanes.items() if name == SOURCE}
        edit, latents = lanes[EDIT], dict.fromkeys(lanes[EDIT].halves, lanes[EDIT].latents)
        outputs: dict[RowKey, Tensor] = {}
        if source:
            keys = row_keys(source)
            with tap(denoiser.network, self.projections) as seen:
                outputs = denoiser.rows(source, keys, step.timestep)
                kept = self._maps(denoiser.network, seen.pop_all(), row_places(source, keys))
            latents = self._moved(step, edit, denoiser, kept)
            edit.latents = latents[edit.halves[0]]
        probes = halves_apart(edit, latents)
        found = denoiser.rows(probes, row_keys(probes), step.timestep)
        outputs |= {(EDIT, half): found[half, "cond"] for half in edit.halves}
        return {name: denoiser.guided(lane, of_lane(outputs, name)) for name, lane in lanes.items()}

    def _moved(
        self, step: Step, edit: Lane, denoiser: Denoiser, kept: Mapping[RowKey, Mapping[str, Tensor]]
    ) -> dict[Half, Tensor]:
        """Latents of each half after one gradient step."""
        with torch.enable_grad(), frozen(denoiser.network):
            first = edit.latents.detach().clone().requires_grad_(True)
            if self.shared:
                leaves = dict.fromkeys(edit.halves, first)
            else:
                leaves = {half: edit.latents.detach().clone().requires_grad_(True) for half in edit.halves}
            probes = halves_apart(edit, leaves)
            with tap(denoiser.network, self.projections, cut_grad=True) as seen:
                denoiser.rows(probes, row_keys(probes), step.timestep)
                places = row_places(probes, row_keys(probes))
                own = self._maps(denoiser.network, seen.pop_all(), places)
            loss = self._loss(edit, own, kept)
            unique = [first] if self.shared else list(leaves.values())
            slopes = torch.autograd.grad(loss.sum(), unique)
        self.cost.add_backward(edit.latents.shape[0] * len(edit.halves))
        self.trace.append({"timestep": step.timestep, "cross_attention": float(loss.detach().mean())})
        if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
            self.non_finite += 1
            slopes = tuple(torch.zeros_like(slope) for slope in slopes)
        each = slopes * len(edit.halves) if self.shared else slopes
        moved = zip(edit.halves, each, strict=True)
        return {half: edit.latents - self.amount * slope for half, slope in moved}

    def _loss(
        self, edit: Lane, own: Mapping[RowKey, Mapping[str, Tensor]], kept: Mapping[RowKey, Mapping[str, Tensor]]
    ) -> Tensor:
        """Squared difference of the maps (B,): sum over layers, pixels and tokens, mean over heads and halves."""
        total = []
        for half in edit.halves:
            source = kept[SOURCE, half if (SOURCE, half) in kept else "cond"]
            each = [(own[half, "cond"][layer] - source[layer]).square().sum((2, 3)).mean(1) for layer in self.layers]
            total.append(torch.stack(each).sum(0))
        return torch.stack(total).mean(0)

    def _maps(
        self, network: nn.Module, seen: Mapping[str, Tensor], places: Mapping[RowKey, slice]
    ) -> dict[RowKey, dict[str, Tensor]]:
        """Attention maps (B, heads, pixels, tokens) of each row and layer."""
        whole = {}
        for layer in self.layers:
            attention: Any = network.get_submodule(layer)
            q, k = (
                seen[site].float().unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                for site in projections([layer], "qk")
            )
            whole[layer] = (q @ k.transpose(-1, -2) * float(attention.scale)).softmax(-1)
        return {key: {layer: maps[rows] for layer, maps in whole.items()} for key, rows in places.items()}


def halves_apart(lane: Lane, latents: Mapping[Half, Tensor]) -> dict[str, Lane]:
    """A lane of its own, with only a conditional half, for each half of a lane."""
    apart = {}
    for half in lane.halves:
        added = lane.prompt.added.get(half)
        apart[str(half)] = Lane(latents[half], Prompt(lane.prompt.half(half), None, {"cond": added} if added else {}))
    return apart
