"""Label maps as pictures, one colour a class: what Pix2Pix and CycleGAN take and give where they learn from labels."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from freectl.mini.domain import OBJECTS

MAPS, PHOTOS = "maps", "photos"
"""Beginnings of tasks: maps and pictures (A, B), and the other way round."""


def colours(count: int) -> Tensor:
    """Of the classes, (count, 3) in [-1, 1]."""
    from gan_baselines.networks.labels import paint

    return paint(torch.arange(count, dtype=torch.float32).view(count, 1, 1, 1)).view(count, 3)


def painted(labels: Tensor, count: int) -> Tensor:
    """Labels (H, W) below `count` as a picture (3, H, W) in [-1, 1]."""
    return colours(count)[labels.long()].permute(2, 0, 1)


def unpainted(picture: Tensor, count: int) -> Tensor:
    """The class (H, W) whose colour is nearest to each pixel of (3, H, W)."""
    channels, height, width = picture.shape
    return torch.cdist(picture.reshape(channels, -1).T, colours(count)).argmin(1).view(height, width)


def class_names(labelled: Path) -> list[str]:
    """Names of the classes of a labelled folder, by label."""
    return [str(name) for name in json.loads((labelled / "labels.json").read_text())]


def as_judged(labels: Tensor, names: list[str]) -> Tensor:
    """Labels in the judge's order: every background 0, the objects from 1 on."""
    order = torch.tensor([1 + list(OBJECTS).index(name) if name in OBJECTS else 0 for name in names])
    return order[labels]


def write_maps(labelled: Path, out: Path, kind: str, layout: str) -> None:
    """The pictures of a labelled folder with their painted maps, as pairs or as two collections, in any order of sides.

    Args:
        kind: `MAPS` or `PHOTOS`. layout: paired, or unpaired: each scene on one side of the training only.
    """
    from gan_baselines.data.pictures import read_labels, save_image, to_image

    count = len(class_names(labelled))
    own, other = ("A", "B") if kind == MAPS else ("B", "A")
    for split in ("train", "test"):
        for index, path in enumerate(sorted((labelled / split / "labels").glob("*.png"))):
            for side in (own, other):
                if layout == "unpaired" and split == "train" and (side == own) != (index % 2 == 0):
                    continue
                folder = out / split / side if layout == "paired" else out / f"{split}{side}"
                folder.mkdir(parents=True, exist_ok=True)
                if side == own:
                    labels = torch.from_numpy(read_labels(path).astype("int64"))
                    save_image(to_image(painted(labels, count)), folder / path.name)
                else:
                    shutil.copyfile(labelled / split / "pictures" / path.name, folder / path.name)
