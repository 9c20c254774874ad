"""The networks of the embedded model, in Stable Diffusion's own classes; sizes chosen by measurement (README)."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from freectl.mini.training.recipe import SHIPPED, Recipe
from freectl.mini.training.tokenizer import MAX_TOKENS

TEXT_WIDTH = 128


def make_vae(recipe: Recipe = SHIPPED) -> AutoencoderKL:
    """Pictures to latents of 16 x 16. Groups of 8 or more channels: fewer erase flat colours."""
    levels = len(recipe.vae_widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.vae_widths,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=recipe.latent_channels,
        sample_size=recipe.picture_size,
        mid_block_add_attention=False,
    )


def make_unet(recipe: Recipe = SHIPPED) -> UNet2DConditionModel:
    """Three levels: 16 x 16 and 8 x 8 with attention, 4 x 4 with attention in the middle only."""
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in recipe.attention)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(recipe.attention))
    return UNet2DConditionModel(
        sample_size=recipe.picture_size // 2 ** (len(recipe.vae_widths) - 1),
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=recipe.widths,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=recipe.heads,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def make_text_encoder(tokenizer: CLIPTokenizer, layers: int = 2) -> CLIPTextModel:
    """A few layers over the domain's words, trained with the UNet."""
    return CLIPTextModel(clip_text_config(tokenizer, layers))


def clip_text_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    """A CLIP text tower of 128 channels over the domain's words."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_scheduler(recipe: Recipe = SHIPPED) -> DDIMScheduler:
    """Stable Diffusion 2's noise schedule and v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=recipe.prediction,
    )


def count_parameters(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def save_pipeline(pipe: DiffusionPipeline, folder: Path) -> None:
    """Write a pipeline in fp16; its networks are fp32 again afterwards."""
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    pipe.to(dtype=torch.float32)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # where the part was loaded from is nobody's business
        if "dtype" in config:  # transformers would load half precision, beside diffusers' networks in single
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n")
