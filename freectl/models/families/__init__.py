"""The registry of model families: a new one is a new file and a line here. Nothing else asks which model it is."""

from typing import Any

from freectl.errors import InputError
from freectl.models.families.base import Family
from freectl.models.families.mini import MINI
from freectl.models.families.sd import SD
from freectl.models.families.sdxl import SDXL
from freectl.models.families.unet import blocks_with_self_attention
from freectl.models.networks import unwrapped

FAMILIES: list[Family] = [SD, SDXL, MINI]


def of(network: Any) -> Family:
    """Family of a denoising network, by its configuration and layers; weights and widths do not matter.

    Raises:
        InputError: none fits; the message lists what was looked for.
    """
    for family in FAMILIES:
        if family.fits(network):
            return family
    config, extra = network.config, network.config.get("addition_embed_type")
    blocks = ", ".join(blocks_with_self_attention(network)) or "no block"
    found = (
        f"a UNet with {len(config.block_out_channels)} levels, {config.in_channels} channels in and "
        f"{config.out_channels} out{f', {extra} inputs' if extra else ''}, self-attention in {blocks}"
    )
    looked_for = "; or ".join(family.looked_for for family in FAMILIES)
    raise InputError("--model", found, f"as many channels out as in, and {looked_for}")


def network_of(pipe: Any) -> Any:
    """The denoising network of a pipeline, without the wrapping of `torch.compile`."""
    names = dict.fromkeys(family.component for family in FAMILIES)
    return unwrapped(next(part for name in names if (part := getattr(pipe, name, None)) is not None))
