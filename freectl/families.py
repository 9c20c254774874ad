"""What differs between UNet families: which self-attentions carry structure, and how seed pictures are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from freectl.taps import self_attention_keys


@dataclass(frozen=True)
class Family:
    """A UNet family.

    Attributes:
        name: key of `prompts/seeds.yaml`.
        structure_block: the decoder block whose self-attention keys are tapped (arXiv 2312.07536, section 4).
        guidance_scale: default of the family's samplers.
        freecontrol: FreeControl's settings that depend on the UNet's width and the size of its feature grid.
    """

    name: str
    structure_block: str
    guidance_scale: float
    freecontrol: Mapping[str, float]

    def sites(self, unet: nn.Module, layers: str = "all") -> list[str]:
        """Names of the tapped `to_k` modules, in execution order."""
        sites = self_attention_keys(unet, self.structure_block)
        return sites[:1] if layers == "first" else sites


# Published for Stable Diffusion (freecontrol: section 4 and the published interface); measured for the embedded model.
PUBLISHED = {"structure_weight": 600.0, "appearance_weight": 60.0, "components": 64}
SD = Family("sd", "up_blocks.1", 7.5, PUBLISHED)
SDXL = Family("sdxl", "up_blocks.0", 5.0, PUBLISHED)
MINI = Family("mini", "up_blocks.1", 4.0, {"structure_weight": 100.0, "appearance_weight": 0.0, "components": 16})


def of(unet: Any) -> Family:
    """Family of a UNet: SDXL by its extra inputs, the embedded model by its three levels, otherwise SD 1.x / 2.x."""
    if unet.config.get("addition_embed_type") == "text_time":
        return SDXL
    return MINI if len(unet.config.block_out_channels) == 3 else SD
