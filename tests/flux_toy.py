"""Tiny pipelines of FLUX.1, Chroma and FLUX.2: the real classes with each family's topology at toy width."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
)
from flow_toy import CHANNELS, JOINT, flow_vae, lively, toy_t5
from toy import TEXT_WIDTH, _byte_alphabet, toy_text_encoder, toy_tokenizer
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

PACKED = 4 * CHANNELS
WIDTH = {"in_channels": PACKED, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}"
CHAT += "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]")


def shifted(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1 dev's, whose shift depends on the picture's size, for toy sizes."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_image_seq_len=8, max_image_seq_len=64, **config
    )


def flux_transformer(guidance: bool = True) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return lively(
        FluxTransformer2DModel(
            num_layers=4,
            joint_attention_dim=JOINT,
            pooled_projection_dim=TEXT_WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
            **WIDTH,
        ).eval()
    )


def flux_pipeline(folder: Path, guidance: bool = True) -> FluxPipeline:
    """FLUX.1 dev, or schnell, whose schedule is not shifted."""
    t5, tokenizer = toy_t5()
    return quiet(
        FluxPipeline(
            transformer=flux_transformer(guidance),
            scheduler=shifted() if guidance else FlowMatchEulerDiscreteScheduler(),
            vae=flow_vae(),
            text_encoder=toy_text_encoder(),
            tokenizer=toy_tokenizer(folder / "tokenizer"),
            text_encoder_2=t5,
            tokenizer_2=tokenizer,
        )
    )


def chroma_pipeline(folder: Path) -> ChromaPipeline:
    t5, tokenizer = toy_t5()
    torch.manual_seed(0)
    transformer = ChromaTransformer2DModel(
        num_layers=4,
        joint_attention_dim=JOINT,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
        **WIDTH,
    ).eval()
    return quiet(
        ChromaPipeline(
            transformer=lively(transformer),
            scheduler=shifted(),
            vae=flow_vae(),
            text_encoder=t5,
            tokenizer=tokenizer,
        )
    )


def flux2_transformer(guidance: bool) -> Flux2Transformer2DModel:
    torch.manual_seed(0)
    return lively(
        Flux2Transformer2DModel(
            num_layers=5,
            joint_attention_dim=3 * TEXT_WIDTH,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance,
            **WIDTH,
        ).eval()
    )


def flux2_vae() -> AutoencoderKLFlux2:
    """Factor 4, times the two cells to a latent's side; its statistics are not those of a new norm."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8,) * 3,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        sample_size=64,
    ).eval()
    vae.bn.running_mean.copy_(0.1 * torch.randn(PACKED))
    vae.bn.running_var.copy_(0.5 + torch.rand(PACKED))
    return vae


def chat_tokenizer() -> Qwen2TokenizerFast:
    """Letters as tokens, with a chat template."""
    entries = [*_byte_alphabet(), *SPECIAL]
    tokenizer = Qwen2TokenizerFast(vocab={entry: i for i, entry in enumerate(entries)}, merges=[], chat_template=CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return tokenizer


LANGUAGE = {"hidden_size": TEXT_WIDTH, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
LANGUAGE |= {"num_key_value_heads": 1, "head_dim": 8, "vocab_size": 256 + len(SPECIAL), "max_position_embeddings": 512}


def klein_pipeline(folder: Path, distilled: bool = False) -> Flux2KleinPipeline:
    torch.manual_seed(0)
    return quiet(
        Flux2KleinPipeline(
            transformer=flux2_transformer(guidance=False),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=flux2_vae(),
            text_encoder=Qwen3ForCausalLM(Qwen3Config(**LANGUAGE)).eval(),
            tokenizer=chat_tokenizer(),
            is_distilled=distilled,
        )
    )


def flux2_pipeline(folder: Path) -> Flux2Pipeline:
    """FLUX.2 dev: its encoder has a vision tower, which no text passes."""
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    vision |= {"model_type": "pixtral", "patch_size": 4, "image_size": 8}
    config = Mistral3Config(
        text_config={"model_type": "mistral", **LANGUAGE}, vision_config=vision, image_token_index=259
    )
    processor = PixtralProcessor(PixtralImageProcessor(), chat_tokenizer(), patch_size=4, chat_template=CHAT)
    return quiet(
        Flux2Pipeline(
            transformer=flux2_transformer(guidance=True),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=flux2_vae(),
            text_encoder=Mistral3ForConditionalGeneration(config).eval(),
            tokenizer=processor,
        )
    )


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
