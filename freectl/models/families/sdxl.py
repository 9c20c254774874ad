"""Stable Diffusion XL."""

from freectl.models.families.unet import PUBLISHED_FREECONTROL, CtrlXLayers, UNetFamily
from freectl.models.pooled_text import PooledTextConditioner

SDXL = UNetFamily(
    name="sdxl",
    pipeline="freectl.pipelines.sdxl:FreeControlXLPipeline",
    text=PooledTextConditioner,
    guidance_scale=5.0,
    freecontrol=PUBLISHED_FREECONTROL,
    upcast_vae=True,  # its VAE overflows in fp16
    structure_block="up_blocks.0",
    ctrlx=CtrlXLayers(  # as published
        "up_blocks.0.resnets.0",
        ("up_blocks.0.attentions",),
        ("down_blocks.1", "down_blocks.2", "up_blocks.0.attentions.1", "up_blocks.0.attentions.2",
         "up_blocks.1.attentions.0", "up_blocks.1.attentions.1"),
    ),
    levels=3,
    word_blocks=("down_blocks.2", "up_blocks.0"),
    addition="text_time",
    side=128,
    single_files=("xl_base",),
)  # fmt: skip
