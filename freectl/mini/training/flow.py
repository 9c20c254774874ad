"""The transformer part: Stable Diffusion 3's layout, rectified flow with logit-normal noise levels (Esser et al. 2024).

x = (1 - s) x0 + s n; the network is asked for n - x0 at time 1000 s; s = sigmoid(z), z normal.
"""

import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from freectl.mini.training.data import sheet_captions, strata
from freectl.mini.training.latents import TrainingLatents
from freectl.mini.training.networks import TEXT_WIDTH, clip_text_config, save_pipeline
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.recipe import SHIPPED, Recipe
from freectl.mini.training.t5 import make_t5_encoder, make_t5_tokenizer
from freectl.mini.training.vae import tile

HEAD = 32
SHORT, LONG, LONG_EVERY = 16, 256, 16
"""T5 tokens of a step, and of every so many a step: plain calls pad to 256, which is four times the work of 16."""
TOWERS = (3, 2)
"""Layers of the two CLIP towers; the last one of each makes the pooled vector alone."""


class FlowPart:
    """Trains transformer and text encoders on the frozen VAE's latents.

    Args:
        model_dir: holds `vae` and `tokenizer`; the finished model is written to `flow` below it.
        cache: folder for the latents of training scenes.
    """

    name = "flow"

    def __init__(self, model_dir: Path, recipe: Recipe = SHIPPED, cache: Path | None = None) -> None:
        torch.manual_seed(4)
        self.recipe = recipe
        self.latents = TrainingLatents(model_dir, recipe, cache)
        self.latents.vae.register_to_config(shift_factor=0.0)
        tokenizer, tokenizer_3 = CLIPTokenizer.from_pretrained(model_dir / "tokenizer"), make_t5_tokenizer()
        towers = [CLIPTextModelWithProjection(clip_text_config(tokenizer, layers)) for layers in TOWERS]
        self.transformer = make_transformer(recipe)
        self.pipe = StableDiffusion3Pipeline(
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            vae=self.latents.vae,
            text_encoder=towers[0],
            tokenizer=tokenizer,
            text_encoder_2=towers[1],
            tokenizer_2=tokenizer,
            text_encoder_3=make_t5_encoder(tokenizer_3, 2 * TEXT_WIDTH, 1),
            tokenizer_3=tokenizer_3,
        )
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        self.modules |= {
            name: getattr(self.pipe, name) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")
        }
        self.facts = recipe.facts(self.name) | {"vae": self.latents.key}

    def matrices(self) -> list[str]:
        """Attention and feed-forward layers, the modulation's too."""
        outer = ("embed", "proj_out", "norm_out", "shared", "relative_attention_bias", "text_projection")
        return hidden_matrices(self.modules, outer)

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished model of the same sizes."""
        made = {
            "transformer": SD3Transformer2DModel,
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
        }
        for name, kind in made.items():
            self.modules[name].load_state_dict(kind.from_pretrained(folder / "flow" / name).float().state_dict())

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Mean squared error of the predicted velocity."""
        _, latents, captions = self.latents.batch(seed, step, batch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=generator)
        normal = torch.special.ndtri(strata(batch, generator).clamp(1e-4, 1 - 1e-4))
        sigmas = normal.sigmoid().view(-1, 1, 1, 1)
        tokens = LONG if step % LONG_EVERY == LONG_EVERY - 1 else SHORT
        text, _, pooled, _ = self.pipe.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=tokens
        )
        velocity = self.transformer(
            hidden_states=(1 - sigmas) * latents + sigmas * noise,
            timestep=1000 * sigmas.flatten(),
            encoder_hidden_states=text,
            pooled_projections=pooled,
        ).sample.float()
        return {"loss": (velocity - (noise - latents)).square().mean()}

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """24 samples at 25 steps, a fixed caption and noise each."""
        self.pipe.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(i) for i in range(24)]
        pictures = self.pipe(
            sheet_captions(),
            num_inference_steps=25,
            guidance_scale=4.0,
            generator=generators,
            output_type="pt",
            max_sequence_length=SHORT,
        ).images
        return tile(pictures * 2 - 1, 8)

    def export(self, folder: Path) -> None:
        """Write the whole model in fp16, Stable Diffusion 3 layout; T5's number of tokens is read by our pipelines."""
        save_pipeline(self.pipe, folder)
        index = folder / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"max_sequence_length": SHORT}, indent=2) + "\n")


def make_transformer(recipe: Recipe) -> SD3Transformer2DModel:
    """Patches of 2 x 2 latents; every block begins as the identity (Peebles and Xie 2023, adaLN-Zero)."""
    width = recipe.flow_heads * HEAD
    side = recipe.picture_size // 2 ** (len(recipe.vae_widths) - 1)
    transformer = SD3Transformer2DModel(
        sample_size=side,
        patch_size=2,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        num_layers=recipe.flow_blocks,
        attention_head_dim=HEAD,
        num_attention_heads=recipe.flow_heads,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=2 * side,
        qk_norm="rms_norm",
    )
    zeroed = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer
