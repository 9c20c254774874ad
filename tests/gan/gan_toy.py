"""Tiny pictures, and settings that make runs of a second."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gan_baselines.config import layout_of

FAST = ["train.cpu=true", "train.threads=1", "train.tracker=none", "train.log_every=2"]
TINY = {
    "dcgan": ["model.width=4", "model.size=32", "train.batch_size=4"],
    "pix2pix": ["model.generator.width=4", "model.generator.downs=4", "model.discriminator.width=4"],
    "cyclegan": ["model.generator.width=4", "model.generator.blocks=1", "model.discriminator.width=4"],
}
TINY["modified-cyclegan"] = TINY["cyclegan"]
for _name in ("simgan", "bigan", "gcgan"):
    TINY[_name] = TINY["cyclegan"]
_FEATURES = ["model.features.width=2", "model.features.stages=2"]
TINY["feature-gan"] = [*TINY["cyclegan"], *_FEATURES, "model.features_from=random"]
TINY["classifier"] = [*_FEATURES, "train.batch_size=4"]
_SQUARE = ["model.features_from=random", "data.load_size=32", "data.size=32", "train.batch_size=2"]
_SMALL = ["model.features.kind=small", *_FEATURES, *_SQUARE]
TINY["adain"] = [*_SMALL, "model.layer=relu2_1"]
TINY["johnson"] = [*_SMALL, "model.generator.width=4", "model.generator.blocks=1", "model.content_layer=relu2_2",
                   'model.style_layers=["relu1_2", "relu2_2"]']  # fmt: skip
TINY["dtn"] = ["model.size=32", "model.width=4", *_FEATURES, "model.features_from=random", "train.batch_size=2"]
TINY["discogan"] = ["model.size=32", "model.width=4", "train.batch_size=2"]
TINY["cogan"] = ["model.size=32", "model.width=4", "model.noise=6", "model.search=3", "train.batch_size=2"]
TINY["bicyclegan"] = [*TINY["pix2pix"], "model.encoder_width=2", "model.encoder_blocks=1", "model.latent=3",
                      "model.discriminator.scales=1", "train.batch_size=2"]  # fmt: skip
TINY["cvaegan"] = ["model.size=32", "model.width=4", "model.latent=5", "train.batch_size=3"]
TINY["infogan"] = ["model.size=32", "model.width=4", "model.noise=5", "model.categories=3", "train.batch_size=3"]
_JUDGE = ["model.discriminator.width=4", "model.discriminator.scales=1"]
TINY["pix2pixhd"] = [*_JUDGE, "model.width=4", "model.downs=1", "model.blocks=1", "model.fine_blocks=1",
                     "model.encoder=true", "model.encoder_width=2", "train.batch_size=2"]  # fmt: skip
TINY["spade"] = [*_JUDGE, "model.width=4", "model.ups=2", "model.hidden=4", "model.latent=3", "model.size=32",
                 "model.encoder_width=2", "model.spade_norm=instance", "train.batch_size=2"]  # fmt: skip
TINY["stackgan"] = ["model.size=32", "model.first_size=16", "model.coarse=8", "model.width=4", "model.noise=4",
                    "model.condition=3", "model.text=5", "model.blocks=1", "train.batch_size=3"]  # fmt: skip
TINY["progan"] = ["model.noise=4", "model.widths=[4, 4, 4, 2]", "train.batch_size=2"]
_CODES = ["model.width=4", "model.blocks=1", "model.discriminator.width=4", "model.discriminator.scales=1"]
TINY["unit"] = _CODES
TINY["munit"] = [*_CODES, "model.style=3"]


def folder_for(data: Path, model: str) -> Path:
    """Where the toy folder holds pictures in the layout of a model."""
    return data / layout_of(model) if (data / layout_of(model)).exists() else data


def batch_for(model: str, size: int = 32, count: int = 2) -> dict[str, torch.Tensor]:
    """Random pictures (and labels, classes, words) as a batch of a model."""
    rng = torch.Generator().manual_seed(0)
    sides = [torch.rand(count, 3, size, size, generator=rng) * 2 - 1 for _ in range(2)]
    batch = {"A": sides[0], "B": sides[1], "picture": sides[0]}
    kind = layout_of(model)
    if kind == "labelled":
        batch["A"] = torch.stack([torch.arange(size * size).view(size, size) // (8 * size) % (3 - i) for i in range(2)])
        batch["A"] = batch["A"].expand(count, -1, -1, -1).float()
    if kind == "classed":
        batch["class"] = torch.arange(count) % 2
    if kind == "captioned":
        batch["words"] = torch.tensor([[1, 2, 0], [3, 0, 0]]).repeat(count, 1)[:count]
    return batch


def picture(index: int, size: int = 32, invert: bool = False) -> Image.Image:
    """A disc of one of eight colours on grey; `invert` turns colours round, which is the other side of a pair."""
    y, x = np.mgrid[:size, :size] / size
    inside = (x - 0.3 - 0.05 * index) ** 2 + (y - 0.5) ** 2 < 0.06
    colour = np.array([index % 2, index // 2 % 2, index // 4 % 2]) * 200 + 30
    pixels = np.where(inside[..., None], colour, 128).astype(np.uint8)
    return Image.fromarray(255 - pixels if invert else pixels)


def write(folder: Path, count: int = 8, size: int = 32, invert: bool = False) -> Path:
    """Write `count` pictures."""
    folder.mkdir(parents=True)
    for index in range(count):
        picture(index, size, invert).save(folder / f"{index}.png")
    return folder
