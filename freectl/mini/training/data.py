"""Training batches: scenes drawn from the step number alone, so that a resumed run sees what it would have seen."""

import random

import torch
from torch import Tensor

from freectl.mini.domain import ARTWORK, BACKGROUNDS, OBJECTS, PICTURE_SIZE, STYLES, caption
from freectl.mini.scene import Scene, random_scene, render
from freectl.mini.tensors import to_tensor

DROP_CAPTION, DROP_WORD = 0.10, 0.10
TRAINING_STYLES = (*STYLES, "silhouette")
"""Silhouettes differ by their outline alone and are learned last: training draws twice as many."""


def batch_rng(seed: int, step: int) -> random.Random:
    """The random source of one step."""
    return random.Random(f"{seed}/{step}")


def sheet_captions() -> list[str]:
    """The 24 captions whose samples show where a generator stands."""
    colours, objects = list(BACKGROUNDS), list(OBJECTS)
    return [caption(ARTWORK[i % 3], objects[i * 5 % len(objects)], colours[i * 3 % 10]) for i in range(24)]


def strata(count: int, generator: torch.Generator) -> Tensor:
    """One number from each of `count` equal parts of 0 to 1 (count,): lower variance than independent draws."""
    return (torch.arange(count) + torch.rand(count, generator=generator)) / count


def scene_batch(
    rng: random.Random,
    count: int,
    *,
    held_out: bool | None = False,
    styles: tuple[str, ...] = STYLES,
    size: int = PICTURE_SIZE,
) -> tuple[list[Scene], Tensor]:
    """Scenes and their pictures (count, 3, size, size)."""
    scenes = [random_scene(rng, styles=styles, held_out=held_out) for _ in range(count)]
    return scenes, to_tensor([render(scene, size) for scene in scenes])


def training_caption(scene: Scene, rng: random.Random, drop: float = DROP_CAPTION) -> str:
    """The caption, empty at times (classifier-free guidance) and with words missing at times."""
    if rng.random() < drop:
        return ""
    style, object_, background = (
        None if rng.random() < DROP_WORD else word for word in (scene.style, scene.object, scene.background)
    )
    return caption(style, object_, background)
