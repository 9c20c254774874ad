"""How much of an outline is in the features that FreeControl follows: masks reconstructed from them, linearly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.scores.intervals import Estimate, estimate
from freectl.denoising.inversion import Trajectory
from freectl.errors import FreectlError
from freectl.mini.domain import ARTWORK
from freectl.mini.export import scenes
from freectl.mini.scene import Scene, render, render_mask
from freectl.models.engine import Engine
from freectl.semantics.analysis import TOLERANCE, Site, features_at
from freectl.semantics.bases import Basis, SemanticBases

SEED = 77
BATCH = 20
LEVELS = (0.8, 0.6, 0.4)
"""Shares of the noise schedule's length, from the start of sampling on; the window of guidance ends at about 0.4."""
COMPONENTS = (16, 64)
TRAINED = 0.75
"""Share of the scenes that the readers are fitted to; the others are read."""
RIDGE = 10.0


@dataclass(frozen=True)
class Read:
    """What was read, at which level, and the IoU of the masks found with the true ones, of scenes not fitted to."""

    what: str
    level: float | None
    iou: Estimate


def patches(masks: Tensor, tokens: int) -> Tensor:
    """Masks (N, H, W) cut into what each of a square grid of tokens covers, (N, tokens, pixels)."""
    grid = round(tokens**0.5)
    height, width = (side // grid for side in masks.shape[1:])
    cut = masks.unfold(1, height, height).unfold(2, width, width)
    return cut.reshape(len(masks), tokens, height * width)


def reconstructed(features: Tensor, masks: Tensor, ridge: float = RIDGE) -> list[float]:
    """IoU of each mask of the last quarter with what a linear reader of its tokens makes of it.

    Each token's features give the pixels that it covers, by ridge regression fitted to the other scenes.

    Args:
        features: (N, tokens, C) on a square grid. masks: (N, H, W), 0 to 1.
        ridge: penalty, of features whose deviation is 1.
    """
    known, wanted = round(TRAINED * len(features)), patches(masks, features.shape[1]).double()
    flat = features[:known].flatten(0, 1).double()
    mean, spread = flat.mean(0), flat.std(0).clamp(min=1e-6)
    design = torch.cat([(flat - mean) / spread, torch.ones(len(flat), 1, dtype=torch.float64)], 1)
    penalty = ridge * torch.eye(design.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 0  # the mean is free
    weights = torch.linalg.solve(design.T @ design + penalty, design.T @ wanted[:known].flatten(0, 1))
    read = (features[known:].double() - mean) / spread @ weights[:-1] + weights[-1]
    return overlaps(read, wanted[known:])


def overlaps(read: Tensor, true: Tensor) -> list[float]:
    """IoU at one half of each of N pairs."""
    one, other = (values.flatten(1) > 0.5 for values in (read, true))
    return ((one & other).sum(1) / (one | other).sum(1).clamp(min=1)).tolist()


def masked_scenes(count: int, side: int) -> tuple[list[Scene], Tensor]:
    """The probes' scenes and their exact masks (N, side, side), 0 to 1."""
    shown = list(scenes(count, SEED, ARTWORK))
    masks = [torch.from_numpy(np.asarray(render_mask(scene, side), dtype=np.float32) / 255) for scene in shown]
    return shown, torch.stack(masks)


def times_of(engine: Engine) -> list[float]:
    """The times of `LEVELS`."""
    times = engine.path(50).times
    return [times[round((1 - share) * (len(times) - 1))] for share in LEVELS]


def probe(engine: Engine, bases: SemanticBases, count: int, sites: Sequence[str], side: int) -> Iterator[Read]:
    """Read the masks of `count` scenes from what passes the sites, whole and as coordinates, and from the grid alone.

    Args:
        side: of the pictures in px.
    """
    shown, masks = masked_scenes(count, side)
    times = times_of(engine)
    found = features_of(engine, [(scene.caption, render(scene, side)) for scene in shown], times, sites)
    known = round(TRAINED * count)
    for tokens in sorted({value.shape[1] for value in found.values()}, reverse=True):
        cut = patches(masks, tokens)[known:]
        what = f"the mean of the mask in each of {tokens} tokens"
        yield Read(what, None, estimate(overlaps(cut.mean(2, keepdim=True).expand_as(cut), cut)))
    for time, share in zip(times, LEVELS, strict=True):
        for site in sites:
            features = found[time, site]
            yield Read(f"{site}, all {features.shape[2]} channels", share, estimate(reconstructed(features, masks)))
            if (basis := _basis(bases, time, site)) is not None:
                for most in COMPONENTS:
                    own = basis.project(features)[..., :most]
                    yield Read(f"{site}, {own.shape[2]} components", share, estimate(reconstructed(own, masks)))


def features_of(
    engine: Engine, shown: Sequence[tuple[str, Image.Image]], times: Sequence[float], sites: Sequence[str]
) -> dict[Site, Tensor]:
    """Features (N, tokens, C) of noised scenes, by level and site; the noise is a function of the scene's number."""
    path, parts = engine.path(50), []
    for first in range(0, len(shown), BATCH):
        some = shown[first : first + BATCH]
        clean = torch.cat([engine.encode_images([picture]) for _, picture in some])
        generators = [torch.Generator().manual_seed(first + index) for index in range(len(some))]
        noise = engine.noise(some[0][1].size, generators)
        levels = {time: path.mixed(clean, noise, time) for time in times}
        prompt = engine.encode_prompt([text for text, _ in some])
        parts.append(features_at(engine.denoiser, Trajectory(clean, levels), prompt, times, sites))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _basis(bases: SemanticBases, time: float, site: str) -> Basis | None:
    try:
        return bases.at(time, site, TOLERANCE)
    except (FreectlError, KeyError):
        return None  # the shipped bases end with the window of guidance
