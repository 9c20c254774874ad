"""What a generator in latents learns from: the frozen autoencoder's latents of training scenes, with captions.

Drawing and encoding a picture of 128 px costs a third of a UNet's step. Where a recipe uses latents again, scenes are
numbered, each a function of (seed, number), and a step draws numbers from a pool that grows by a share of the batch;
latents at hand are kept in a file.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from freectl.mini.scene import Scene, random_scene, render
from freectl.mini.tensors import to_tensor
from freectl.mini.training.data import TRAINING_STYLES, batch_rng, scene_batch, training_caption
from freectl.mini.training.recipe import Recipe

CAPACITY = 1 << 20
FIRST = 2048
"""Scenes of the pool at the first step."""


def pool_size(step: int, batch: int, reuse: int) -> int:
    """Scenes that a step may draw: a growing number, so that each is seen about `reuse` times."""
    return min(CAPACITY, FIRST + step * batch // reuse)


def numbered_scene(seed: int, number: int) -> Scene:
    """One scene of the endless training set of a seed."""
    return random_scene(random.Random(f"{seed}/scene/{number}"), styles=TRAINING_STYLES, held_out=False)


class Batch(NamedTuple):
    """Training examples: scenes, their scaled latents (B, C, h, w), and captions with words left out at times."""

    scenes: list[Scene]
    latents: Tensor
    captions: list[str]


class LatentPool:
    """Latents by number, in half precision, made when first asked for.

    Args:
        make: the latent (C, h, w) of a number. shape: (C, h, w).
        file: where latents are kept between runs; a sparse file that grows with use. None: in memory.
    """

    def __init__(self, make: Callable[[int], Tensor], shape: tuple[int, int, int], file: Path | None = None) -> None:
        self.make = make
        self.memory: dict[int, np.ndarray] = {}
        self.rows: np.ndarray | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            size = 2 * CAPACITY * int(np.prod(shape))
            if not file.exists() or file.stat().st_size != size:
                with file.open("wb") as made:
                    made.truncate(size)
            self.rows = np.memmap(file, np.float16, "r+", shape=(CAPACITY, *shape))

    def latents(self, numbers: Sequence[int]) -> Tensor:
        """Latents (B, C, h, w) of these numbers, float32."""
        return torch.from_numpy(np.stack([self._one(number) for number in numbers])).float()

    def _one(self, number: int) -> np.ndarray:
        known = self.memory.get(number) if self.rows is None else self.rows[number]
        # no latent is zero throughout, and a row of the sparse file that was never written is
        if known is not None and known.any():
            return known
        made = self.make(number).half().numpy()
        if self.rows is None:
            self.memory[number] = made
        else:
            self.rows[number] = made
        return made


class TrainingLatents:
    """Batches of scenes, scaled latents and captions.

    Args:
        model_dir: holds `vae`. cache: folder of the files of latents; None keeps them in memory.
    """

    def __init__(self, model_dir: Path, recipe: Recipe, cache: Path | None = None) -> None:
        self.recipe, self.cache = recipe, cache
        self.vae = AutoencoderKL.from_pretrained(model_dir / "vae").float().requires_grad_(False).eval()
        self.vae.to(memory_format=torch.channels_last)
        self.pools: dict[int, LatentPool] = {}

    @property
    def key(self) -> str:
        """A name for the encoder's weights: latents of another encoder are of no use, another decoder's are."""
        digest = hashlib.sha256(str(self.vae.config.scaling_factor).encode())
        for name, value in self.vae.state_dict().items():
            if name.startswith(("encoder.", "quant_conv.")):
                digest.update(value.half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), -1 to 1, to scaled latents (B, C, h, w), float32."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return self.vae.encode(pictures).latent_dist.mode().float() * self.vae.config.scaling_factor

    def batch(self, seed: int, step: int, count: int) -> "Batch":
        """The examples of one step, a function of (seed, step) alone."""
        rng, recipe = batch_rng(seed, step), self.recipe
        if recipe.reuse == 1:
            scenes, pictures = scene_batch(rng, count, styles=TRAINING_STYLES, size=recipe.picture_size)
            latents = self.encode(pictures)
        else:
            numbers = [rng.randrange(pool_size(step, count, recipe.reuse)) for _ in range(count)]
            scenes, latents = [numbered_scene(seed, number) for number in numbers], self._pool(seed).latents(numbers)
        return Batch(scenes, latents, [training_caption(scene, rng, recipe.drop_caption) for scene in scenes])

    def fill(self, seed: int, count: int) -> None:
        """Encode the first so many scenes of the pool, where there is one."""
        if self.recipe.reuse > 1:
            for number in range(count):
                self._pool(seed).latents([number])

    def _pool(self, seed: int) -> LatentPool:
        def make(number: int) -> Tensor:
            # one at a time: rounding may depend on the rest of a batch, and a resumed run must see the same
            picture = render(numbered_scene(seed, number), self.recipe.picture_size)
            return self.encode(to_tensor([picture]))[0]

        if seed not in self.pools:
            side = self.recipe.picture_size // 2 ** (len(self.recipe.vae_widths) - 1)
            file = self.cache / f"{self.key}-{seed}.f16" if self.cache else None
            self.pools[seed] = LatentPool(make, (self.recipe.latent_channels, side, side), file)
        return self.pools[seed]
