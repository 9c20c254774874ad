"""Surface normals from estimated depth by Sobel differences, flat behind a depth, as the published code makes them."""

from typing import Any

import numpy as np

from freectl.preprocess.depth import estimator
from freectl.preprocess.registry import Apply, Preprocess
from freectl.preprocess.weights import check_model, small

RELIEF = 0.5
"""Nearest minus farthest point, in longer sides of the picture: a ball that fills the picture has its true normals."""


def check(preprocess: Preprocess) -> None:
    """Raises InputError: neither a folder nor a hub id; background out of 0 to 1."""
    check_model(preprocess)
    preprocess.number("background", 0, 1)


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """Normals as colours, (n + 1) / 2."""
    from freectl.preprocess.arrays import to_picture

    depth, background = estimator(preprocess, device), preprocess.number("background", 0, 1)
    return small(lambda image: to_picture((normals(depth(image), background) + 1) / 2))


def normals(depth: Any, background: float) -> Any:
    """Unit normals (H, W, 3): x right, y up, z to the viewer, of depth (H, W), 0 far to 1 near.

    Where the depth is below `background` the surface counts as facing the viewer.
    """
    padded = np.pad(np.asarray(depth, dtype=np.float64), 1, mode="edge") * RELIEF * max(np.shape(depth))
    smooth_y = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    smooth_x = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    right = (smooth_y[:, 2:] - smooth_y[:, :-2]) / 2
    down = (smooth_x[2:] - smooth_x[:-2]) / 2
    flat = np.asarray(depth) < background
    vectors = np.stack([np.where(flat, 0, -right), np.where(flat, 0, down), np.ones_like(right)], -1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
