"""Tiny pictures, and settings that make runs of a second."""

from pathlib import Path

import numpy as np
from PIL import Image

FAST = ["train.cpu=true", "train.threads=1", "train.tracker=none", "train.log_every=2"]
TINY = {
    "dcgan": ["model.width=4", "model.size=32", "train.batch_size=4"],
    "pix2pix": ["model.generator.width=4", "model.generator.downs=4", "model.discriminator.width=4"],
    "cyclegan": ["model.generator.width=4", "model.generator.blocks=1", "model.discriminator.width=4"],
}
TINY["modified-cyclegan"] = TINY["cyclegan"]


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
