"""Tiny diffusers components with random weights, made on the spot: the real classes at toy width, always seeded."""

import json
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from freectl.denoising import path
from freectl.denoising.path import Path as NoisePath
from freectl.denoising.sampler import Denoiser
from freectl.denoising.schedules import path_of
from freectl.models.families.unet import unet_call

Family = Literal["sd1", "sd2", "sdxl"]
Prediction = Literal["epsilon", "v_prediction"]
TEXT_WIDTH = 16
SECOND_WIDTH = 24
TOKENS = 77
PICTURE = 32
LATENT = 8
TRUE_PICTURE = 128
BOS, EOS = 512, 513
TIME_WIDTH = 8


def toy_unet(
    family: Family = "sd1", cross_attention_dim: int | None = None, sample_size: int = LATENT, seed: int = 0
) -> UNet2DConditionModel:
    """UNet of three levels with the family's block names; in every family `up_blocks.1` has self-attention.

    One layer a block fewer than is published, but in sdxl's `up_blocks.0`, which holds three attentions with two
    transformer blocks each; there the text width is that of both encoders together.
    """
    xl = family == "sdxl"
    down = ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2 if xl else ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"]
    extra = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": 6 * TIME_WIDTH + TEXT_WIDTH,
        "transformer_layers_per_block": (1, 1, 2),
    }
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(8, 16, 16),
        layers_per_block=(1, 1, 2) if xl else 1,
        down_block_types=tuple(down),
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        attention_head_dim=2,  # diffusers reads it as the number of heads
        norm_num_groups=4,
        cross_attention_dim=cross_attention_dim or TEXT_WIDTH * (2 if xl else 1),
        use_linear_projection=family != "sd1",
        **(extra if xl else {}),
    ).eval()


def toy_inputs(
    unet: UNet2DConditionModel, batch: int = 2, tokens: int = 7, timestep: int = 501, seed: int = 1
) -> dict[str, object]:
    """Keyword arguments for one call of a toy UNet, with the extra inputs SDXL wants."""
    generator = torch.Generator().manual_seed(seed)
    config = unet.config

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    inputs: dict[str, object] = {
        "sample": noise(batch, config.in_channels, config.sample_size, config.sample_size),
        "timestep": timestep,
        "encoder_hidden_states": noise(batch, tokens, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        sizes = torch.tensor([[PICTURE, PICTURE, 0, 0, PICTURE, PICTURE]] * batch)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["added_cond_kwargs"] = {"text_embeds": noise(batch, pooled), "time_ids": sizes}
    return inputs


def toy_vae(seed: int = 0, levels: int = 3, **config: object) -> AutoencoderKL:
    """Autoencoder of three levels: factor 4, four latent channels."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=PICTURE,
        **config,
    ).eval()


def toy_text_encoder(
    projection: bool = False, seed: int = 0, layers: int = 2, width: int = TEXT_WIDTH
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """CLIP text tower for the toy tokenizer; with a projection for SDXL's second encoder."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=EOS + 1,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _byte_alphabet() -> list[str]:
    # byte-level BPE writes printable Latin-1 bytes as themselves and moves the others past 255
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def toy_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write and load a CLIP tokenizer without merges: every letter is a token, 514 entries."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = _byte_alphabet()
    entries = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def toy_scheduler(prediction_type: Prediction = "epsilon") -> DDIMScheduler:
    """Stable Diffusion's DDIM scheduler."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def toy_pipeline(
    tmp_path: Path, prediction_type: Prediction = "epsilon", family: Literal["sd1", "sd2"] = "sd1"
) -> StableDiffusionPipeline:
    """Stable Diffusion pipeline for 32 px pictures, progress bar off."""
    pipe = StableDiffusionPipeline(
        vae=toy_vae(),
        text_encoder=toy_text_encoder(),
        tokenizer=toy_tokenizer(tmp_path / "tokenizer"),
        unet=toy_unet(family),
        scheduler=toy_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def toy_xl_pipeline(tmp_path: Path) -> StableDiffusionXLPipeline:
    """SDXL pipeline for 32 px pictures, without watermark, progress bar off."""
    pipe = StableDiffusionXLPipeline(
        vae=toy_vae(),
        text_encoder=toy_text_encoder(),
        text_encoder_2=toy_text_encoder(projection=True, seed=1),
        tokenizer=toy_tokenizer(tmp_path / "tokenizer"),
        tokenizer_2=toy_tokenizer(tmp_path / "tokenizer_2"),
        unet=toy_unet("sdxl"),
        scheduler=toy_scheduler(),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def true_unet_config(family: Family, full: bool = False) -> dict[str, object]:
    """Configuration of a published UNet: Stable Diffusion 1.5, 2.1 (768 px) or XL base.

    Args:
        full: published widths and depths; else the same levels and blocks a few channels wide, for 128 px pictures,
            with 3 instead of 10 transformer blocks in XL's deepest attentions.
    """
    xl = family == "sdxl"
    down = ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2) if xl else (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")
    config: dict[str, object] = {
        "sample_size": {"sd1": 64, "sd2": 96, "sdxl": 128}[family] if full else TRUE_PICTURE // 8,
        "block_out_channels": (320, 640, 1280) if xl else (320, 640, 1280, 1280),
        "down_block_types": down,
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
        "layers_per_block": 2,
        "attention_head_dim": {"sd1": 8, "sd2": [5, 10, 20, 20], "sdxl": [5, 10, 20]}[family],
        "cross_attention_dim": {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family],
        "use_linear_projection": family != "sd1",
    }
    if xl:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config |= {"transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816}
    if not full:
        config |= {"block_out_channels": (8, 16, 16) if xl else (8, 8, 16, 16), "norm_num_groups": 4}
        config |= {"attention_head_dim": 2, "cross_attention_dim": TEXT_WIDTH + (SECOND_WIDTH if xl else 0)}
        if xl:
            added = 6 * TIME_WIDTH + SECOND_WIDTH
            config |= {"addition_time_embed_dim": TIME_WIDTH, "projection_class_embeddings_input_dim": added}
            config |= {"transformer_layers_per_block": [1, 2, 3]}
    return config


def true_pipeline(family: Family, folder: Path) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Pipeline with a family's published blocks and layers at toy width, for 128 px pictures, progress bar off."""
    torch.manual_seed(0)
    parts = {
        "vae": toy_vae(levels=4, force_upcast=family == "sdxl"),
        "text_encoder": toy_text_encoder(),
        "tokenizer": toy_tokenizer(folder / "tokenizer"),
        "unet": UNet2DConditionModel(**true_unet_config(family)).eval(),
        "scheduler": toy_scheduler("v_prediction" if family == "sd2" else "epsilon"),
    }
    if family == "sdxl":
        # single files are told apart by its depth, and its weights from the first encoder's by their width
        second = toy_text_encoder(projection=True, seed=1, layers=10, width=SECOND_WIDTH)
        tokenizer = toy_tokenizer(folder / "tokenizer_2")
        pipe = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False)
    else:
        pipe = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def denoiser_of(unet: torch.nn.Module) -> Denoiser:
    """A UNet, or what is called like one, as the loop takes it."""
    return Denoiser(unet, unet_call)


def on_path(scheduler: DDIMScheduler) -> NoisePath:
    """The path of a scheduler whose grid has been set."""
    return path_of(scheduler).on(len(scheduler.timesteps))


def alpha_bar(scheduler: DDIMScheduler, timestep: int) -> Tensor:
    """Cumulative alpha of a timestep; below 0 the scheduler's value for the clean picture. float64 scalar."""
    value = scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod
    return value.double()


def previous_timestep(scheduler: DDIMScheduler, timestep: int) -> int:
    """The next lower timestep of a scheduler's grid; negative = the clean picture."""
    return on_path(scheduler).below(timestep)


def clean_and_noise(kind: str, output: Tensor, latents: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted clean latents and noise at cumulative alpha `abar`."""
    return path.clean_and_noise(kind, output, latents, abar.sqrt().to(latents), (1 - abar).sqrt().to(latents))
