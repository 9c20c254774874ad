"""A lane's tensors under the names that diffusers' step callbacks use, and back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.sampler import TEXT_MASK, Half, Lane, Prompt, Step
from freectl.errors import InputError

ADDED = {
    "add_text_embeds": "text_embeds",
    "add_time_ids": "time_ids",
    "pooled_prompt_embeds": "pooled_projections",
    "prompt_embeds_mask": TEXT_MASK,
}
"""Names of added inputs in diffusers' callbacks: SDXL's, Stable Diffusion 3's, and of texts of several lengths."""
HALVES: tuple[Half, ...] = ("cond", "uncond")


def call_back(callback: Any, pipe: Any, engine: Any, step: Step, lane: Lane, names: Sequence[str]) -> None:
    """Show a step callback the tensors `names` of a lane, and give the lane what it changes.

    Args:
        pipe: a pipeline of ours, whose guidance scale the lane takes too. engine: the run's `Engine`.

    Raises:
        InputError: as `change_lane`.
    """
    family, network, size = engine.family, engine.network, (lane.latents.shape[-2], lane.latents.shape[-1])
    tensors = lane_tensors(lane, apart=pipe.halves_apart)
    shown = tensors | {"latents": family.packed(network, lane.latents)}
    changed = callback(pipe, step.index, step.timestep, {name: shown[name] for name in names}) or {}
    if "latents" in changed:
        changed = {**changed, "latents": family.unpacked(network, changed["latents"], size)}
    change_lane(lane, tensors, changed, pipe._guidance_scale)


def lane_tensors(lane: Lane, *, apart: bool = False) -> dict[str, Tensor | None]:
    """A lane's tensors as diffusers' callbacks have them: the rows of what is not "negative_" are the unconditional
    half's, under guidance, and then the conditional one's, (2 B, ...).

    Args:
        apart: they are the conditional half's alone, (B, ...), as some pipelines have it.
    """
    tensors: dict[str, Tensor | None] = {"latents": lane.latents, "negative_prompt_embeds": lane.prompt.uncond}
    tensors["prompt_embeds"] = _stacked(None if apart else lane.prompt.uncond, lane.prompt.cond)
    for name, key in ADDED.items():
        cond, uncond = (lane.prompt.added.get(half, {}).get(key) for half in ("cond", "uncond"))
        tensors["negative_" + name] = uncond
        tensors[name] = None if cond is None else _stacked(None if apart else uncond, cond)
    return tensors


def change_lane(lane: Lane, before: dict[str, Any], changed: dict[str, Any], guidance_scale: float) -> None:
    """Give a lane what a callback changed, and a guidance scale; at 1 or less its unconditional half is dropped.

    Args:
        before: as `lane_tensors` gave it. changed: some of these names; (B, ...) is the conditional half alone, as
            `prompt_embeds.chunk(2)[-1]` gives it.

    Raises:
        InputError: a tensor has another number of rows than the lane.
    """
    rows, tensors = lane.latents.shape[0], before | changed
    halves = {name: _halves(name, before, tensors, rows) for name in ("prompt_embeds", *ADDED)}
    if tensors["latents"].shape[0] != rows:
        _refuse("latents", tensors["latents"], str(rows))
    lane.latents, lane.guidance_scale = tensors["latents"], guidance_scale
    uncond, cond = halves["prompt_embeds"]
    uncond = uncond if guidance_scale > 1 else None
    added = {
        half: dict(lane.prompt.added[half])
        | {key: halves[name][half == "cond"] for name, key in ADDED.items() if key in lane.prompt.added[half]}
        for half in HALVES
        if half in lane.prompt.added and (half == "cond" or uncond is not None)
    }
    lane.prompt = Prompt(cond, uncond, added)


def _stacked(uncond: Tensor | None, cond: Tensor) -> Tensor:
    return cond if uncond is None else torch.cat([uncond, cond])


def _halves(name: str, before: dict[str, Any], now: dict[str, Any], rows: int) -> tuple[Any, Any]:
    """(unconditional, conditional) half of a tensor; a changed "negative_" one wins over the rows of the whole."""
    whole, other = now[name], now["negative_" + name]
    if whole is None:
        return None, None
    if whole.shape[0] not in (rows, 2 * rows):
        _refuse(name, whole, f"{rows} or {2 * rows}, one a picture or one for each half")
    if other is not None and other.shape[0] != rows:
        _refuse("negative_" + name, other, f"{rows}, one a picture")
    if other is before["negative_" + name] and whole.shape[0] == 2 * rows:
        other = whole[:rows]
    return other, whole[-rows:]


def _refuse(name: str, tensor: Tensor, allowed: str) -> None:
    raise InputError("callback_on_step_end", f"'{name}' with {tensor.shape[0]} rows", allowed)
