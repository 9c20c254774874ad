"""Measures of trained spatial control: does a sample keep the outline that it was shown, and the words?"""

import random
from pathlib import Path
from typing import Any

import torch

from freectl.errors import InputError
from freectl.mini.domain import ARTWORK, DERIVED
from freectl.mini.judge import HEADS, Judge, judge_pictures, mask_iou
from freectl.mini.sampling import GUIDANCE
from freectl.mini.scene import random_scene, render_mask
from freectl.mini.score_helpers import SEED, share
from freectl.mini.training.control import ControlPart, Kind, condition
from freectl.mini.training.recipe import RECIPES, Recipe

BATCH = 20


def score_control(
    folder: Path, kind: Kind, judge: Judge, count: int = 100, steps: int = 50, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Agreement of the judge with the caption, and overlap of its mask with the true one, by kind of condition.

    Args:
        folder: a model folder with the control network in a folder named after its kind.
        count: fresh scenes of artwork styles, the same for each kind of condition.
        recipe: of the model's picture size by default.

    Raises:
        InputError: the folder has no such network.
    """
    if not (folder / kind / "config.json").exists():
        raise InputError(
            "--model",
            f"'{folder}', which has no {kind}/config.json",
            f"a folder that `freectl mini train --part {kind}` wrote",
        )
    recipe = recipe or RECIPES[judge.size]
    part = ControlPart(kind, folder, recipe)
    part.start_from(folder)
    pipe = part.pipeline()
    pipe.set_progress_bar_config(disable=True)
    rng = random.Random(f"control/{SEED}")
    scenes = [random_scene(rng, styles=ARTWORK, held_out=False) for _ in range(count)]
    scores: dict[str, Any] = {}
    for style in DERIVED:
        pictures = []
        for first in range(0, count, BATCH):
            some = scenes[first : first + BATCH]
            pictures += pipe(
                [scene.caption for scene in some],
                image=[condition(scene, style, recipe.picture_size) for scene in some],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(first + i) for i in range(len(some))],
            ).images
        verdicts = judge_pictures(judge, pictures)
        pairs = list(zip(verdicts, scenes, strict=True))
        for head in HEADS:
            scores[f"{style}_{head}_agreement"] = share(v.labels[head] == getattr(s, head) for v, s in pairs)
        ious = [mask_iou(verdict.mask, render_mask(scene, judge.size)) for verdict, scene in pairs]
        scores[f"{style}_outline_iou"] = round(sum(ious) / count, 4)
    return scores
