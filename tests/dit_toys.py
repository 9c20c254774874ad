"""Tiny pipelines on diffusion transformers beside Stable Diffusion 3: the real classes at toy width, always seeded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from flow_toy import CHANNELS, JOINT, lively, toy_t5
from toy import toy_scheduler, toy_vae

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

    def sampled(self, plain: Any, latents: torch.Tensor, steps: int, guidance: float, **more: Any) -> Any:
        """Latents (1, C, h, w) of diffusers' own pipeline from given ones, or pictures if asked for."""
        given = {"latents": packed(latents) if self.packed else latents, "output_type": "latent"}
        given |= {"num_inference_steps": steps, "width": SIZE[0], "height": SIZE[1], "negative_prompt": "grey"}
        images = plain("a cat", **given | self.plain(guidance) | more).images
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
        num_layers=4,
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
}
