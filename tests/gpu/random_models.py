"""Pipelines of published width and depth with random weights: what they cost is what the real ones cost."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from flow_toy import toy_t5
from toy import BOS, EOS, TOKENS, toy_scheduler, toy_tokenizer, true_unet_config
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from freectl.pipelines.flux import FreeControlFluxPipeline
from freectl.pipelines.sd import FreeControlPipeline
from freectl.pipelines.sd3 import FreeControl3Pipeline
from freectl.pipelines.sdxl import FreeControlXLPipeline

CLIP_L, CLIP_G = 768, 1280
SD3_MEDIUM: dict[str, Any] = {
    "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "in_channels": 16,
    "out_channels": 16, "joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
"""Stable Diffusion 3.5-medium."""
FLUX_BLOCKS = 19
"""Of two streams in FLUX.1; twice as many of one."""
BLOCK_GIB, BESIDE_GIB = 1.2, 12.0
"""One of the former and two of the latter in 16 bits; what all else takes, the gradient counted."""


def vae(channels: int, **config: Any) -> AutoencoderKL:
    """The autoencoder of all these families, factor 8."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=channels,
        sample_size=1024,
        **config,
    )


def text_encoder(width: int, projection: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text tower of two layers and the toy tokenizer's words: texts cost next to nothing beside pictures."""
    config = CLIPTextConfig(
        vocab_size=EOS + 1, hidden_size=width, intermediate_size=2 * width, projection_dim=width, num_hidden_layers=2,
        num_attention_heads=width // 64, max_position_embeddings=TOKENS, bos_token_id=BOS, eos_token_id=EOS,
        pad_token_id=EOS,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def sd15(folder: Path) -> FreeControlPipeline:
    """Stable Diffusion 1.5."""
    return FreeControlPipeline.from_pipe(
        StableDiffusionPipeline(
            vae=vae(4), text_encoder=text_encoder(CLIP_L), tokenizer=toy_tokenizer(folder / "tokenizer"),
            unet=UNet2DConditionModel(**true_unet_config("sd1", full=True)), scheduler=toy_scheduler(),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )
    )  # fmt: skip


def sdxl(folder: Path) -> FreeControlXLPipeline:
    """Stable Diffusion XL; its autoencoder in single precision, as published."""
    tokenizer = toy_tokenizer(folder / "tokenizer")
    return FreeControlXLPipeline.from_pipe(
        StableDiffusionXLPipeline(
            vae=vae(4, force_upcast=True), text_encoder=text_encoder(CLIP_L), tokenizer=tokenizer,
            text_encoder_2=text_encoder(CLIP_G, projection=True), tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(**true_unet_config("sdxl", full=True)), scheduler=toy_scheduler(),
            add_watermarker=False,
        )
    )  # fmt: skip


def sd35_medium(folder: Path) -> FreeControl3Pipeline:
    """Stable Diffusion 3.5-medium, without T5."""
    tokenizer = toy_tokenizer(folder / "tokenizer")
    return FreeControl3Pipeline.from_pipe(
        StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(**SD3_MEDIUM), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=text_encoder(CLIP_L, projection=True), tokenizer=tokenizer,
            text_encoder_2=text_encoder(CLIP_G, projection=True), tokenizer_2=tokenizer,
            text_encoder_3=None, tokenizer_3=None,
        )
    )  # fmt: skip


def flux1_dev(folder: Path, blocks: int | None = None) -> FreeControlFluxPipeline:
    """FLUX.1 dev with as many of its blocks as there is memory for, and a T5 of one layer.

    Args:
        blocks: of two streams, if that is to be told.
    """
    blocks = fitting() if blocks is None else blocks
    _, tokenizer = toy_t5()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=4096, d_kv=64, d_ff=128, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return FreeControlFluxPipeline.from_pipe(
        FluxPipeline(
            transformer=FluxTransformer2DModel(
                num_layers=blocks, num_single_layers=2 * blocks, guidance_embeds=True, pooled_projection_dim=CLIP_L
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=text_encoder(CLIP_L), tokenizer=toy_tokenizer(folder / "tokenizer"),
            text_encoder_2=T5EncoderModel(config), tokenizer_2=tokenizer,
        )
    )  # fmt: skip


def fitting() -> int:
    """Blocks of two streams for which the device has memory, with two of one stream to each: 4 to 19."""
    free = torch.cuda.mem_get_info()[0] / 2**30
    return max(4, min(FLUX_BLOCKS, int((free - BESIDE_GIB) / BLOCK_GIB)))


MODELS: dict[str, tuple[Callable[[Path], Any], int]] = {
    "Stable Diffusion 1.5": (sd15, 512),
    "Stable Diffusion XL": (sdxl, 1024),
    "Stable Diffusion 3.5-medium": (sd35_medium, 1024),
    "FLUX.1 dev": (flux1_dev, 1024),
}
"""How each is made, and the side of its pictures in pixels."""


def made(name: str, folder: Path, device: str, dtype: torch.dtype) -> Any:
    """A pipeline of `MODELS`, its weights drawn on the device: the same on every run there."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            pipe = MODELS[name][0](folder)
    finally:
        torch.set_default_dtype(before)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, dtype)


def freed(device: str) -> int:
    """Bytes on the device that are still held once garbage is collected."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device)
