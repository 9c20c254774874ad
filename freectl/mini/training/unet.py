"""The generator part: UNet and text encoder, v-prediction with plain mean squared error, on fresh scenes each step."""

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from freectl.mini.scene import Scene
from freectl.mini.training.data import sheet_captions, strata
from freectl.mini.training.latents import TrainingLatents
from freectl.mini.training.networks import make_scheduler, make_text_encoder, make_unet, save_pipeline
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.recipe import SHIPPED, Recipe, loss_weights
from freectl.mini.training.vae import tile


class Example(NamedTuple):
    """One step's scenes and captions, noisy latents (B, C, h, w) at timesteps (B,), and the target of that shape."""

    scenes: list[Scene]
    captions: list[str]
    noisy: Tensor
    timesteps: Tensor
    target: Tensor


class UNetPart:
    """Trains UNet and text encoder on the frozen VAE's latents.

    Args:
        model_dir: holds `vae` and `tokenizer`; the finished model is written there.
        cache: folder for the latents of training scenes, where the recipe uses them again.
    """

    name = "unet"

    def __init__(self, model_dir: Path, recipe: Recipe = SHIPPED, cache: Path | None = None) -> None:
        torch.manual_seed(1)
        self.recipe = recipe
        self.latents = TrainingLatents(model_dir, recipe, cache)
        self.vae = self.latents.vae
        self.tokenizer = CLIPTokenizer.from_pretrained(model_dir / "tokenizer")
        self.text_encoder = make_text_encoder(self.tokenizer)
        self.unet = make_unet(recipe).to(memory_format=torch.channels_last)
        # The fused attention kernel's backward is slow in bfloat16 on a CPU: a third of a step.
        self.unet.set_attn_processor(AttnProcessor())
        self.scheduler = make_scheduler(recipe)
        self.modules: dict[str, nn.Module] = {"unet": self.unet}
        if recipe.train_text:
            self.modules["text_encoder"] = self.text_encoder
        else:
            self.text_encoder.requires_grad_(False)
        self.facts = recipe.facts(self.name) | {"vae": self.latents.key}

    def matrices(self) -> list[str]:
        """Attention, feed-forward and convolutions of both networks."""
        return hidden_matrices(self.modules, ("conv_in", "conv_out", "time_embedding", "embeddings"))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished model of the same sizes, also one that knows other latents."""
        self.unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").float().state_dict())
        self.text_encoder.load_state_dict(CLIPTextModel.from_pretrained(folder / "text_encoder").float().state_dict())

    def encode_text(self, captions: list[str]) -> Tensor:
        """Captions to (B, 24, 128)."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(ids)[0]

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Mean squared error of the predicted velocity (or noise, as the recipe says)."""
        made = self.example(seed, step, batch)
        return self.loss(self.unet(made.noisy, made.timesteps, self.encode_text(made.captions)).sample, made)

    def example(self, seed: int, step: int, batch: int) -> "Example":
        """What the network sees at one step, and what it is asked for."""
        scenes, latents, captions = self.latents.batch(seed, step, batch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = (strata(batch, generator) * self.scheduler.config.num_train_timesteps).long()
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        velocity = self.recipe.prediction == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        return Example(scenes, captions, noisy, timesteps, target)

    def loss(self, predicted: Tensor, made: "Example") -> dict[str, Tensor]:
        """The weighted squared error of a prediction."""
        weights = loss_weights(self.recipe, self.scheduler.alphas_cumprod[made.timesteps])
        return {"loss": (weights * (predicted.float() - made.target).square().mean((1, 2, 3))).mean()}

    def pipeline(self) -> StableDiffusionPipeline:
        """The model as a plain Stable Diffusion pipeline."""
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """24 samples at 25 steps, a fixed caption and noise each."""
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        captions = sheet_captions()
        generators = [torch.Generator().manual_seed(i) for i in range(24)]
        pictures = pipe(captions, num_inference_steps=25, guidance_scale=4.0, generator=generators, output_type="pt")
        return tile(pictures.images * 2 - 1, 8)

    def export(self, folder: Path) -> None:
        """Write the whole model in fp16, Stable Diffusion layout."""
        self.unet.set_attn_processor(AttnProcessor2_0())
        save_pipeline(self.pipeline(), folder)
