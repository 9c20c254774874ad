"""Tiny pipelines on flow transformers: the real classes with a family's topology at toy width, always seeded."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from toy import TEXT_WIDTH, toy_text_encoder, toy_tokenizer
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

import freectl

JOINT = 2 * TEXT_WIDTH
CHANNELS = 4
WORDS = ("a", "cat", "dog", "red", "grey", "sitting", "on", "grass")
SD3_DEPTH = 8


def flow_vae(seed: int = 0) -> AutoencoderKL:
    """Factor 4, four channels, with a shift as the flow families' autoencoders have."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8,) * 3,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def toy_t5(seed: int = 0) -> tuple[T5EncoderModel, T5TokenizerFast]:
    """A T5 encoder of one layer, and a tokenizer of whole words."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"\u2581{word}", -1.0) for word in WORDS)]
    tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(pieces),
        d_model=JOINT,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval(), tokenizer


def sd3_transformer(
    qk_norm: str | None = "rms_norm", dual: int = 4, seed: int = 0, depth: int = SD3_DEPTH
) -> SD3Transformer2DModel:
    """SD3.5-medium's topology; without norms and dual blocks SD3-medium's, without dual blocks alone 3.5-large's."""
    torch.manual_seed(seed)
    network = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=depth,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=JOINT,
        caption_projection_dim=32,
        pooled_projection_dim=JOINT,
        pos_embed_max_size=24,
        qk_norm=qk_norm,
        dual_attention_layers=tuple(range(dual)),
    ).eval()
    return lively(network)


def lively(network: Any, seed: int = 1) -> Any:
    """The network with its last layer scaled to outputs of unit size, so that a step moves something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.proj_out.weight.copy_(0.3 * torch.randn(network.proj_out.weight.shape, generator=generator))
    return network


def small_sd3(folder: Path, **network: Any) -> Any:
    """A pipeline of ours of half the depth and with few tokens of text, for tests of methods."""
    network = {"dual": 2, "depth": 4} | network
    parts = sd3_pipeline(folder, **network).components
    pipe = freectl.FreeControl3Pipeline(**parts, max_sequence_length=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd3_pipeline(folder: Path, *, third: bool = True, **network: Any) -> StableDiffusion3Pipeline:
    """For 64 px pictures, progress bar off."""
    t5, tokenizer = toy_t5() if third else (None, None)
    pipe = StableDiffusion3Pipeline(
        transformer=sd3_transformer(**network),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(),
        text_encoder=toy_text_encoder(projection=True),
        tokenizer=toy_tokenizer(folder / "tokenizer"),
        text_encoder_2=toy_text_encoder(projection=True, seed=1),
        tokenizer_2=toy_tokenizer(folder / "tokenizer_2"),
        text_encoder_3=t5,
        tokenizer_3=tokenizer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
