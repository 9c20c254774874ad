"""How far a sample is from the nearest true drawing: the pose is fitted by search, the words are the caption's.

Classifiers forgive torn outlines and soft faces; pixels do not. Rotation, scale and shift are found by pattern search
(Hooke and Jeeves 1961), from several rotations, both ways round and, for derived styles, over the three drawings.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from freectl.mini.captions import Wanted
from freectl.mini.domain import ARTWORK, BACKGROUNDS
from freectl.mini.scene import MAX_ROTATION, MAX_SCALE, MIN_SCALE, Scene, render

COARSE = 32
"""Side of the pictures on which the pose is found before it is refined at the sample's own."""
STARTS = (-10.0, 0.0, 10.0)
STEPS = (8.0, 0.08, 0.06, 0.06)
"""First steps of rotation (degrees), scale and shift (shares of the side)."""
ROUNDS_COARSE, ROUNDS_FINE = 4, 3
"""How often the steps are halved."""
Pose = tuple[float, float, float, float]


def drawing_distance(sample: Image.Image, wanted: Wanted) -> tuple[float, Scene]:
    """Mean squared error (pixels of 0 to 1) to the nearest true drawing of the caption, and its scene.

    Args:
        sample: RGB, square.
    """
    small = sample.resize((COARSE, COARSE), Image.Resampling.BOX)
    x, y, scale = _place(small, wanted.background)
    artworks = (wanted.style,) if wanted.style in ARTWORK else ARTWORK
    found: list[tuple[float, Scene]] = []
    for artwork in artworks:
        for flip in (False, True):
            for rotation in STARTS:
                begin = Scene(wanted.object, wanted.style, wanted.background, artwork, flip=flip)
                found.append(_search(small, begin, (rotation, scale, x, y), STEPS, ROUNDS_COARSE))
    found.sort(key=lambda one: one[0])
    best = []
    for _, scene in found[:2]:
        fine = tuple(step / 2**ROUNDS_COARSE for step in STEPS)
        pose = (scene.rotation, scene.scale, *scene.shift)
        best.append(_search(sample, scene, pose, fine, ROUNDS_FINE))
    return min(best, key=lambda one: one[0])


def mean_distances(samples: Sequence[Image.Image], wanted: Sequence[Wanted]) -> dict[str, float]:
    """Mean distance by style, times 1000."""
    by_style: dict[str, list[float]] = {}
    for sample, one in zip(samples, wanted, strict=True):
        by_style.setdefault(one.style, []).append(drawing_distance(sample, one)[0])
    return {f"drawing_distance_{style}": round(1000 * sum(v) / len(v), 2) for style, v in sorted(by_style.items())}


def _place(picture: Image.Image, background: str) -> tuple[float, float, float]:
    """Shift and scale of a first guess: the box of the pixels that are not the background."""
    away = np.abs(np.asarray(picture, dtype=float) - BACKGROUNDS[background]).max(-1) > 60
    if not away.any():
        return 0.0, 0.0, (MIN_SCALE + MAX_SCALE) / 2
    side = len(away)
    rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
    high, wide = (line[-1] + 1 - line[0] for line in (rows, columns))
    x, y = ((line[0] + line[-1] + 1) / 2 / side - 0.5 for line in (columns, rows))
    return float(x), float(y), float(np.clip(max(high, wide) / side, MIN_SCALE, MAX_SCALE))


def _posed(scene: Scene, pose: Pose) -> Scene:
    rotation, scale, x, y = pose
    scale = min(max(scale, MIN_SCALE), MAX_SCALE)
    room = (1 - scale) / 2
    return replace(
        scene,
        rotation=min(max(rotation, -MAX_ROTATION), MAX_ROTATION),
        scale=scale,
        shift=(min(max(x, -room), room), min(max(y, -room), room)),
    )


def _search(sample: Image.Image, scene: Scene, pose: Pose, steps: Sequence[float], rounds: int) -> tuple[float, Scene]:
    """The lowest error near a pose: one coordinate at a time, steps halved where none helps."""
    target = np.asarray(sample, dtype=float) / 255

    def error(at: Pose) -> float:
        return float(np.square(np.asarray(render(_posed(scene, at), sample.width), dtype=float) / 255 - target).mean())

    best, lengths = error(pose), list(steps)
    while rounds:
        before = best
        for axis in range(4):
            for sign in (1, -1):
                moved = tuple(value + sign * lengths[axis] * (i == axis) for i, value in enumerate(pose))
                if (found := error(moved)) < best:  # type: ignore[arg-type]
                    best, pose = found, moved  # type: ignore[assignment]
                    break
        if best == before:
            lengths, rounds = [length / 2 for length in lengths], rounds - 1
    return best, _posed(scene, pose)
