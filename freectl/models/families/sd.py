"""Stable Diffusion 1.x and 2.x."""

from freectl.models.conditioning import TextConditioner
from freectl.models.families.unet import PUBLISHED_FREECONTROL, CtrlXLayers, UNetFamily

SD = UNetFamily(
    name="sd",
    pipeline="freectl.pipelines.sd:FreeControlPipeline",
    text=TextConditioner,
    guidance_scale=7.5,
    freecontrol={**PUBLISHED_FREECONTROL, "features": "block"},
    structure_block="up_blocks.1",
    # Ctrl-X is published for SDXL; these are the blocks at the same shares of the picture's side (1/32 and 1/16).
    ctrlx=CtrlXLayers(
        "up_blocks.1.resnets.0",
        ("up_blocks.1.attentions",),
        ("down_blocks.1", "down_blocks.2", "up_blocks.1.attentions.1", "up_blocks.1.attentions.2",
         "up_blocks.2.attentions.0", "up_blocks.2.attentions.1"),
    ),
    levels=4,
    single_files=("v1", "v2"),
    word_blocks=("down_blocks.2", "up_blocks.1"),
)  # fmt: skip
