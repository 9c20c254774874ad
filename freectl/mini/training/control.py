"""Trained spatial control of a finished generator: ControlNet (Zhang et al. 2023), T2I-Adapter (Mou et al. 2023).

A condition is the sketch or the silhouette, on white, of the scene to be drawn; the generator stays as it is.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    T2IAdapter,
)
from PIL import Image
from torch import Tensor, nn

from freectl.mini.domain import DERIVED
from freectl.mini.scene import Scene, render
from freectl.mini.tensors import to_tensor
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.optimizers import hidden_matrices
from freectl.mini.training.recipe import SHIPPED, Recipe
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import tile

Kind = Literal["controlnet", "t2i-adapter"]
PIPELINES = {"controlnet": StableDiffusionControlNetPipeline, "t2i-adapter": StableDiffusionAdapterPipeline}
EMBEDDING = (16, 32, 64, 96)
"""Channels of the ControlNet's way from the condition to 16 x 16, a stage a halving; 64 px take one less."""


class ControlPart:
    """Trains a control network of a kind on the generator of a model folder.

    Args:
        model_dir: holds a finished model; the network is written below it, in a folder named after its kind.
        cache: folder for the latents of training scenes.
    """

    def __init__(self, kind: Kind, model_dir: Path, recipe: Recipe = SHIPPED, cache: Path | None = None) -> None:
        self.name: str = kind
        self.base = UNetPart(model_dir, recipe, cache)
        self.base.start_from(model_dir)
        for network in (self.base.unet, self.base.text_encoder):
            network.requires_grad_(False).eval()
        torch.manual_seed(5)
        if kind == "controlnet":
            made = ControlNetModel.from_unet(
                self.base.unet, conditioning_embedding_out_channels=EMBEDDING[: len(recipe.vae_widths)]
            )
        else:
            made = T2IAdapter(3, list(recipe.widths), 1, 2 ** (len(recipe.vae_widths) - 1), "full_adapter")
        self.network: Any = made.requires_grad_(True).to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {kind: self.network}
        self.facts = self.base.facts

    def matrices(self) -> list[str]:
        """Attention, feed-forward and convolutions, but what carries the condition in."""
        return hidden_matrices(self.modules, ("conv_in", "time_embedding", "cond_embedding", "controlnet_"))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished network of the same sizes."""
        self.network.load_state_dict(type(self.network).from_pretrained(folder / self.name).float().state_dict())

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """The generator's own loss, with the condition of each scene."""
        made = self.base.example(seed, step, batch)
        rng = batch_rng(seed, step)
        shown = [condition(scene, rng.choice(DERIVED), self.base.recipe.picture_size) for scene in made.scenes]
        with torch.no_grad():
            text = self.base.encode_text(made.captions)
        steering = self._steering(to_tensor(shown).add(1).div(2), made.noisy, made.timesteps, text)
        return self.base.loss(self.base.unet(made.noisy, made.timesteps, text, **steering).sample, made)

    def _steering(self, shown: Tensor, noisy: Tensor, timesteps: Tensor, text: Tensor) -> dict[str, Any]:
        """What the UNet is given beside its inputs, for conditions (B, 3, H, W) of 0 to 1."""
        if self.name == "t2i-adapter":
            return {"down_intrablock_additional_residuals": self.network(shown)}
        down, middle = self.network(noisy, timesteps, text, controlnet_cond=shown, return_dict=False)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    def pipeline(self) -> StableDiffusionControlNetPipeline | StableDiffusionAdapterPipeline:
        """Generator and control network as diffusers' own pipeline."""
        parts = {name: value for name, value in self.base.pipeline().components.items() if name != "image_encoder"}
        given = {"controlnet" if self.name == "controlnet" else "adapter": self.network}
        return PIPELINES[self.name](**parts, **given, requires_safety_checker=False)

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Eight conditions above samples of the scenes that they were made of."""
        scenes, _ = scene_batch(batch_rng(-1, 0), 8, size=self.base.recipe.picture_size)
        shown = [condition(scene, DERIVED[i % 2], self.base.recipe.picture_size) for i, scene in enumerate(scenes)]
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(i) for i in range(8)]
        captions = [scene.caption for scene in scenes]
        made = pipe(captions, image=shown, num_inference_steps=25, guidance_scale=4.0, generator=generators)
        return tile(torch.cat([to_tensor(shown), to_tensor(made.images)]), 8)

    def export(self, folder: Path) -> None:
        """Write the network in fp16, as diffusers loads it."""
        self.network.half().save_pretrained(folder)
        self.network.float()


def condition(scene: Scene, style: str, size: int) -> Image.Image:
    """The scene's sketch or silhouette on white, RGB, `size` x `size`."""
    return render(scene.with_words(style=style, background="white"), size)
