"""What differs between UNet families: which self-attentions carry structure, and how seed pictures are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from freectl.denoising.taps import self_attention_keys
from freectl.errors import InputError


@dataclass(frozen=True)
class CtrlXLayers:
    """Where Ctrl-X taps a UNet (arXiv 2406.07540); module names or the beginnings of such.

    Attributes:
        feature: the residual block whose output is injected.
        structure: attentions whose self-attention queries and keys are injected.
        appearance: attentions whose input takes over the appearance's statistics.
    """

    feature: str
    structure: tuple[str, ...]
    appearance: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A UNet family.

    Attributes:
        name: key of `prompts/seeds.yaml`.
        structure_block: the decoder block whose self-attention keys are tapped (arXiv 2312.07536, section 4).
        guidance_scale: default of the family's samplers.
        freecontrol: FreeControl's settings that depend on the UNet's width and the size of its feature grid.
        ctrlx: Ctrl-X's layers.
        levels: resolutions of the UNet.
        word_blocks: encoder and decoder blocks whose cross-attention tells where a word is, at one resolution: the
            16 x 16 of arXiv 2208.01626 in Stable Diffusion, its like in the others.
        addition: `addition_embed_type` of the UNet's configuration: inputs besides text and time.
    """

    name: str
    structure_block: str
    guidance_scale: float
    freecontrol: Mapping[str, float]
    ctrlx: CtrlXLayers
    levels: int
    word_blocks: tuple[str, str]
    addition: str | None = None

    def sites(self, unet: nn.Module, layers: str = "all") -> list[str]:
        """Names of the tapped `to_k` modules, in execution order."""
        sites = self_attention_keys(unet, self.structure_block)
        return sites[:1] if layers == "first" else sites

    def fits(self, unet: Any) -> bool:
        """Whether a UNet has this family's levels and inputs, and self-attention in the tapped block."""
        config = unet.config
        return (
            len(config.block_out_channels) == self.levels
            and config.get("addition_embed_type") == self.addition
            and config.in_channels == config.out_channels
            and self.structure_block in _blocks_with_self_attention(unet)
        )

    @property
    def looked_for(self) -> str:
        """What `fits` asks of a UNet, in words."""
        extra = f", {self.addition} inputs" if self.addition else ""
        return f"{self.name} ({self.levels} levels{extra}, self-attention in {self.structure_block})"


# Published for Stable Diffusion (freecontrol: section 4 and the published interface); measured for the embedded model.
PUBLISHED = {"structure_weight": 600.0, "appearance_weight": 60.0, "components": 64}
# Ctrl-X is published for SDXL; the others tap the blocks at the same shares of the picture's side (1/32 and 1/16).
SD_CTRLX = CtrlXLayers(
    "up_blocks.1.resnets.0",
    ("up_blocks.1.attentions",),
    ("down_blocks.1", "down_blocks.2", "up_blocks.1.attentions.1", "up_blocks.1.attentions.2",
     "up_blocks.2.attentions.0", "up_blocks.2.attentions.1"),
)  # fmt: skip
SDXL_CTRLX = CtrlXLayers(
    "up_blocks.0.resnets.0",
    ("up_blocks.0.attentions",),
    ("down_blocks.1", "down_blocks.2", "up_blocks.0.attentions.1", "up_blocks.0.attentions.2",
     "up_blocks.1.attentions.0", "up_blocks.1.attentions.1"),
)  # fmt: skip
# Measured for the embedded model, whose grids are coarser: in six edits of its benchmark, at 16 steps, the result
# overlaps with the true mask by 0.58 with attention injected at 8 x 8 alone, by 0.79 at 16 x 16 too.
MINI_CTRLX = CtrlXLayers(
    "up_blocks.1.resnets.0",
    ("up_blocks.1.attentions", "up_blocks.2.attentions"),
    ("down_blocks.0", "down_blocks.1", "up_blocks.1.attentions.1", "up_blocks.2.attentions.0"),
)
MINI_FREECONTROL = {"structure_weight": 100.0, "appearance_weight": 0.0, "components": 16}
SD = Family("sd", "up_blocks.1", 7.5, PUBLISHED, SD_CTRLX, levels=4, word_blocks=("down_blocks.2", "up_blocks.1"))
SDXL = Family(
    "sdxl",
    "up_blocks.0",
    5.0,
    PUBLISHED,
    SDXL_CTRLX,
    levels=3,
    word_blocks=("down_blocks.2", "up_blocks.0"),
    addition="text_time",
)
MINI = Family(
    "mini",
    "up_blocks.1",
    4.0,
    MINI_FREECONTROL,
    MINI_CTRLX,
    levels=3,
    word_blocks=("down_blocks.0", "up_blocks.2"),
)
FAMILIES = (SD, SDXL, MINI)


def of(unet: Any) -> Family:
    """Family of a UNet, by its configuration and the place of its self-attentions; weights and widths do not matter.

    Raises:
        InputError: none fits; the message lists what was looked for.
    """
    for family in FAMILIES:
        if family.fits(unet):
            return family
    config, extra = unet.config, unet.config.get("addition_embed_type")
    blocks = ", ".join(_blocks_with_self_attention(unet)) or "no block"
    found = (
        f"a UNet with {len(config.block_out_channels)} levels, {config.in_channels} channels in and "
        f"{config.out_channels} out{f', {extra} inputs' if extra else ''}, self-attention in {blocks}"
    )
    looked_for = "; or ".join(family.looked_for for family in FAMILIES)
    raise InputError("--model", found, f"as many channels out as in, and {looked_for}")


def _blocks_with_self_attention(unet: nn.Module) -> list[str]:
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn1.to_k")]
    return sorted({name.partition(".attentions.")[0] for name in names})
