"""Tiny pipelines on diffusion transformers beside Stable Diffusion 3: the real classes at toy width, always seeded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImageImg2ImgPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from flow_toy import CHANNELS, JOINT, flow_vae, lively, toy_t5
from toy import _byte_alphabet, toy_scheduler, toy_vae
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

import freectl

SIZE = (96, 64)
"""Width and height of the pictures, in pixels."""


@dataclass(frozen=True)
class Toy:
    """A family in small.

    Attributes:
        build: folder -> diffusers' pipeline.
        ours: name of our class.
        cells: latent cells (height, width) of a picture of `SIZE`.
        plain: arguments of diffusers' call for a guidance scale of ours.
        changed: diffusers' image-to-image: pipeline, encoded picture, noise, steps, strength, guidance -> latents.
        full: the transformer of the published configuration.
        keys: where structure is read in it: the name of a layer with the block's number left open, the blocks, and the
            number of all blocks. parameters: of it, in billions as published.
        packed: whether diffusers' latents are packed, 2 x 2 cells to a token.
        wide_latents: whether diffusers keeps latents in fp32 whatever the network is in.
    """

    build: Callable[[Path], Any]
    ours: str
    cells: tuple[int, int]
    plain: Callable[[float], dict[str, Any]]
    changed: Callable[..., torch.Tensor]
    full: Callable[[], Any]
    keys: tuple[str, range, int]
    parameters: float
    packed: bool = False
    wide_latents: bool = False

    def wrap(self, plain: Any) -> Any:
        """Our pipeline of a diffusers one."""
        made = getattr(freectl, self.ours).from_pipe(plain)
        made.set_progress_bar_config(disable=True)
        return made

    def noise(self, seed: int = 7) -> torch.Tensor:
        """Latents (1, C, h, w) to start from."""
        return torch.randn(1, CHANNELS, *self.cells, generator=torch.Generator().manual_seed(seed))

    def sampled(self, plain: Any, latents: torch.Tensor | None, steps: int, guidance: float, **more: Any) -> Any:
        """Latents (1, C, h, w) of diffusers' own pipeline, from given ones if any; or pictures if asked for."""
        given = {"latents": packed(latents) if self.packed and latents is not None else latents}
        given |= {"num_inference_steps": steps, "width": SIZE[0], "height": SIZE[1], "negative_prompt": "grey"}
        given |= {"output_type": "latent"} | self.plain(guidance) | more
        images = plain("a cat", **given).images
        return unpacked(images, *self.cells) if self.packed and given["output_type"] == "latent" else images

    def dtype_of(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as diffusers' pipeline takes them."""
        return latents.float() if self.wide_latents else latents


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) as (B, h w / 4, 4 C)."""
    return torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `packed`."""
    squares = tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return torch.nn.functional.pixel_shuffle(squares, 2)


def pixart_transformer(seed: int = 0) -> PixArtTransformer2DModel:
    """PixArt-Sigma's topology: learned variance, no sizes told, texts of another width."""
    torch.manual_seed(seed)
    network = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=3,
        cross_attention_dim=16,
        sample_size=16,
        caption_channels=JOINT,
        use_additional_conditions=False,
    ).eval()
    lively(network).proj_out.weight.data.mul_(0.2)  # noise that is predicted, not a velocity: kept near the identity
    return network


def pixart_pipeline(_folder: Path) -> PixArtSigmaPipeline:
    """For 64 px pictures, on Stable Diffusion's schedule: on its own an untrained network's errors count 160 times."""
    encoder, tokenizer = toy_t5()
    pipe = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=toy_vae(),
        transformer=pixart_transformer(),
        scheduler=toy_scheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Tail(DDIMScheduler):
    """DDIM whose grids are their last steps alone; diffusers has no image-to-image of PixArt."""

    kept = 0

    def set_timesteps(self, *given: Any, **named: Any) -> None:
        super().set_timesteps(*given, **named)
        self.timesteps = self.timesteps[len(self.timesteps) - self.kept :]


def _pixart_changed(
    plain: Any, clean: torch.Tensor, noise: torch.Tensor, steps: int, strength: float, guidance: float
) -> torch.Tensor:
    scheduler = Tail.from_config(plain.scheduler.config)
    scheduler.kept = int(steps * strength)
    scheduler.set_timesteps(steps)
    start = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    pipe = PixArtSigmaPipeline(**plain.components | {"scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    return TOYS["pixart"].sampled(pipe, start, steps, guidance)


def _pixart_plain(guidance: float) -> dict[str, Any]:
    return {"guidance_scale": guidance, "use_resolution_binning": False, "clean_caption": False}


def _pixart_full() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        sample_size=128, caption_channels=4096, use_additional_conditions=False, interpolation_scale=2
    )


def language_tokenizer() -> Qwen2Tokenizer:
    """A token a byte, with a chat template like Qwen3's."""
    entries = [*_byte_alphabet(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={entry: i for i, entry in enumerate(entries)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    message = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    tokenizer.chat_template = "{% for m in messages %}" + message + "{% endfor %}<|im_start|>assistant\n"
    return tokenizer


_LANGUAGE = {
    "vocab_size": 259,
    "hidden_size": JOINT,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def qwen_vae(seed: int = 0) -> AutoencoderKLQwenImage:
    """Factor 8 as published; a mean and a deviation for each channel."""
    torch.manual_seed(seed)
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 0.7, 1.1, 0.9],
    ).eval()


def qwen_pipeline(_folder: Path) -> QwenImagePipeline:
    """With a schedule that ends above 0, as published."""
    torch.manual_seed(0)
    network = QwenImageTransformer2DModel(
        in_channels=4 * CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=JOINT,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    rope = {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": JOINT}
    config = Qwen2_5_VLConfig(text_config=_LANGUAGE | {"rope_parameters": rope}, vision_config=vision)
    torch.manual_seed(1)
    pipe = QwenImagePipeline(
        scheduler=scheduler,
        vae=qwen_vae(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=language_tokenizer(),
        transformer=lively(network),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _qwen_changed(
    plain: Any, clean: torch.Tensor, noise: torch.Tensor, steps: int, strength: float, guidance: float
) -> torch.Tensor:
    theirs = QwenImageImg2ImgPipeline(**plain.components)
    return _img2img("qwen-image", theirs, clean, noise, steps, strength, guidance)


def z_image_pipeline(_folder: Path, shift: float = 6.0) -> ZImagePipeline:
    """Z-Image; with a shift of 3 Z-Image-Turbo."""
    torch.manual_seed(0)
    network = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=JOINT,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 48, 48],
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (network.x_pad_token, network.cap_pad_token, network.all_final_layer["2-1"].linear.weight):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    torch.manual_seed(1)
    pipe = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=flow_vae(),
        text_encoder=Qwen3Model(Qwen3Config(**_LANGUAGE, head_dim=16)).eval(),
        tokenizer=language_tokenizer(),
        transformer=network,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _z_image_changed(
    plain: Any, clean: torch.Tensor, noise: torch.Tensor, steps: int, strength: float, guidance: float
) -> torch.Tensor:
    theirs = ZImageImg2ImgPipeline(**plain.components)
    return _img2img("z-image", theirs, clean, noise, steps, strength, guidance)


def _img2img(
    name: str, pipe: Any, clean: torch.Tensor, noise: torch.Tensor, steps: int, strength: float, guidance: float
) -> torch.Tensor:
    """Diffusers' image-to-image, which draws the noise itself, of an encoded picture."""
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(torch.randn(noise.shape, generator=torch.Generator().manual_seed(3)), noise)
    return TOYS[name].sampled(
        pipe, None, steps, guidance, image=clean, strength=strength, generator=torch.Generator().manual_seed(3)
    )


TOYS = {
    "pixart": Toy(
        pixart_pipeline,
        "FreeControlPixArtPipeline",
        (16, 24),
        _pixart_plain,
        _pixart_changed,
        _pixart_full,
        ("transformer_blocks.{}.attn1.to_k", range(5, 11), 28),
        0.61,
    ),
    "qwen-image": Toy(
        qwen_pipeline,
        "FreeControlQwenImagePipeline",
        (8, 12),
        lambda guidance: {"true_cfg_scale": guidance},
        _qwen_changed,
        QwenImageTransformer2DModel,
        ("transformer_blocks.{}.attn.norm_k", range(12, 23), 60),
        20.4,
        packed=True,
    ),
    "z-image": Toy(
        z_image_pipeline,
        "FreeControlZImagePipeline",
        (16, 24),
        lambda guidance: {"guidance_scale": guidance - 1},
        _z_image_changed,
        ZImageTransformer2DModel,
        ("layers.{}.attention.norm_k", range(8, 16), 30),
        6.15,
        wide_latents=True,
    ),
}
