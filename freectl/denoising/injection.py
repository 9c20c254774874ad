"""Copying activations of one row of the stacked batch into others: features, and Q, K, V of attention.

Rows go by the sampler's names (lane, half), so that a lane may be added or dropped without an index being wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from freectl.denoising.attention_layers import WHOLE, Part
from freectl.denoising.sampler import (
    TEXT_MASK,
    Controller,
    Denoiser,
    Half,
    Lane,
    Prompt,
    RowKey,
    Step,
    of_one_length,
    row_keys,
)
from freectl.denoising.taps import Edit, tap

SOURCE, EDIT = "source", "edit"


def row_places(lanes: Mapping[str, Lane], keys: Sequence[RowKey]) -> dict[RowKey, slice]:
    """Where each named row's B entries lie in a batch stacked in the order `keys`."""
    places, first = {}, 0
    for key in keys:
        last = first + lanes[key[0]].latents.shape[0]
        places[key], first = slice(first, last), last
    return places


def row_pairs(lanes: Mapping[str, Lane], source: str = SOURCE, target: str = EDIT) -> dict[RowKey, RowKey]:
    """Target row -> source row: each half from the same half, or from the conditional one if the source has no other.

    Raises:
        ValueError: the lanes differ in batch size.
    """
    sizes = [lanes[name].latents.shape[0] for name in (source, target)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"lanes '{source}' and '{target}' must have equal batches; found {sizes[0]} and {sizes[1]}")
    halves = lanes[source].halves
    return {(target, half): (source, half if half in halves else "cond") for half in lanes[target].halves}


def copy_rows(
    value: Tensor, places: Mapping[RowKey, slice], pairs: Mapping[RowKey, RowKey], part: Part = WHOLE
) -> Tensor:
    """A new (rows, ...) in which each target row holds its source row; all sources are read before any is written.

    Args:
        value: output of a module for the stacked batch, rows first.
        places: as `row_places` gives it. pairs: target row -> source row. part: what is copied of them.
    """
    copied = value.clone()
    for target, source in pairs.items():
        part.of(copied[places[target]]).copy_(part.of(value[places[source]]))
    return copied


def copies(
    sites: Sequence[str],
    places: Mapping[RowKey, slice],
    pairs: Mapping[RowKey, RowKey],
    parts: Mapping[str, Part] | None = None,
) -> dict[str, Edit]:
    """`edits` for `taps.tap` that copy rows at every site, of the sites in `parts` these parts alone."""
    return {s: partial(copy_rows, places=places, pairs=pairs, part=(parts or {}).get(s, WHOLE)) for s in sites}


def projections(layers: Sequence[str], letters: str) -> tuple[str, ...]:
    """Sites of the projections `letters`, of "qkv", of attention layers."""
    return tuple(f"{layer}.to_{letter}" for layer in layers for letter in letters)


def parts_of(denoiser: Denoiser, latents: Tensor) -> Mapping[str, Part]:
    """Where what passes a site is not the picture's alone: site -> its part, for latents (rows, C, h, w)."""
    size = (latents.shape[-2], latents.shape[-1])
    return {} if denoiser.parts is None else denoiser.parts(denoiser.network, size)


def text_of(prompts: Sequence[tuple[Prompt, Half]]) -> Tensor | None:
    """Which tokens of halves of prompts count, (rows, tokens) of bool, in order; None where none are masked."""
    halves = of_one_length([(prompt.half(half), prompt.added.get(half)) for prompt, half in prompts])
    masks = [added[TEXT_MASK] for _, added in halves if added and TEXT_MASK in added]
    return torch.cat(masks).bool() if masks else None


@dataclass(frozen=True)
class Injection:
    """Sites whose source rows are copied in the window [start, stop), as fractions of the steps."""

    sites: tuple[str, ...]
    start: float = 0.0
    stop: float = 1.0

    def steps(self, count: int) -> int:
        """How many of `count` steps lie in the window."""
        return sum(Step(index, count, 0).within(self.start, self.stop) for index in range(count))


class SourceInjector(Controller):
    """Copies activations of lane "source" into lane "edit" while the source follows an inverted picture.

    At each timestep the source lane is set to the inversion's own latents, so that it does not drift. In steps that
    copy nothing it is not run.

    Args:
        levels: timestep -> latents (B, C, h, w) of the source.
        injections: what is copied when.
    """

    def __init__(self, levels: Mapping[float, Tensor], injections: Sequence[Injection]) -> None:
        self.levels, self.injections = levels, tuple(injections)

    def sites(self, step: Step) -> list[str]:
        """The sites that are copied at a step."""
        return [site for one in self.injections if step.within(one.start, one.stop) for site in one.sites]

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """All lanes; the source only if it is copied from."""
        return tuple(name for name in lanes if name != SOURCE or self.sites(step))

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Set the source to its inverted latents."""
        if SOURCE in lanes:
            lanes[SOURCE].latents = self.levels[step.timestep].to(lanes[SOURCE].latents)

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs with the copies in place."""
        if SOURCE not in lanes:
            return super().predict(step, lanes, denoiser)
        with tap(denoiser.network, edits=self.edits(step, lanes, denoiser)):
            return super().predict(step, lanes, denoiser)

    def edits(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Edit]:
        """What a step changes, for `taps.tap`."""
        parts = parts_of(denoiser, lanes[EDIT].latents)
        return copies(self.sites(step), row_places(lanes, row_keys(lanes)), row_pairs(lanes), parts)

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """None for the source, so that the edit's draws do not depend on how long the source runs."""
        return torch.zeros_like(lane.latents) if name == SOURCE else super().noise(step, name, lane, generators)
