"""A lane's tensors under the names that diffusers' step callbacks use, and back."""

from typing import Any

from torch import Tensor

from freectl.denoising.sampler import Half, Lane, Prompt
from freectl.errors import InputError

ADDED = {
    "add_text_embeds": "text_embeds",
    "add_time_ids": "time_ids",
    "pooled_prompt_embeds": "pooled_projections",
}
"""Names of added inputs in diffusers' callbacks: SDXL's, and Stable Diffusion 3's."""
PREFIXES: dict[Half, str] = {"cond": "", "uncond": "negative_"}


def lane_tensors(lane: Lane) -> dict[str, Tensor | None]:
    """A lane's tensors as callbacks name them: (B, ...), conditional and unconditional apart."""
    tensors = {"latents": lane.latents, "prompt_embeds": lane.prompt.cond, "negative_prompt_embeds": lane.prompt.uncond}
    for half, prefix in PREFIXES.items():
        for name, key in ADDED.items():
            tensors[prefix + name] = lane.prompt.added.get(half, {}).get(key)
    return tensors


def change_lane(lane: Lane, tensors: dict[str, Any], guidance_scale: float) -> None:
    """Give a lane the tensors of `lane_tensors`, and a guidance scale; at 1 or less its unconditional half is dropped.

    Raises:
        InputError: a tensor has another number of rows than the lane.
    """
    rows = lane.latents.shape[0]
    for name, value in tensors.items():
        if value is not None and value.shape[0] != rows:
            raise InputError("callback_on_step_end", f"'{name}' with {value.shape[0]} rows", f"{rows}, one a picture")
    lane.latents, lane.guidance_scale = tensors["latents"], guidance_scale
    uncond = tensors["negative_prompt_embeds"] if guidance_scale > 1 else None
    added = {
        half: {key: tensors[prefix + name] for name, key in ADDED.items() if key in lane.prompt.added[half]}
        for half, prefix in PREFIXES.items()
        if half in lane.prompt.added and (half == "cond" or uncond is not None)
    }
    lane.prompt = Prompt(tensors["prompt_embeds"], uncond, added)
