"""The size at which scenes of the embedded world are drawn: the benchmarks are scenes and words, not pixels."""

import json
from functools import lru_cache
from pathlib import Path

from PIL import Image

from freectl.files.data import EMBEDDED, MODEL_DIR
from freectl.files.paths import at_home, is_file
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.scene import Scene, render, render_mask


def world_side(model: str = "mini") -> int:
    """Side in px of the pictures that a model of the embedded world knows: that of the judge in its folder.

    Other models get the embedded model's pictures, brought to their own size as those of any user.

    Args:
        model: as `--model` has it.
    """
    folder = EMBEDDED.get(model) or at_home(model)
    # a further generator lies inside the folder of the first
    return _side_of(folder) or _side_of(folder.parent) or _side_of(MODEL_DIR) or PICTURE_SIZE


@lru_cache
def _side_of(folder: Path) -> int | None:
    config = folder / "judge" / "config.json"
    if not is_file(config):
        return None
    try:
        return int(json.loads(config.read_text(encoding="utf-8")).get("size", PICTURE_SIZE))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def pixels(share: float, side: int) -> int:
    """A length that is given as pixels of a picture of 64 px, in one of `side` px; 1 or more."""
    return max(1, round(share * side / 64))


def drawn(scene: Scene) -> Image.Image:
    """The scene's picture, RGB, at the embedded model's size."""
    return render(scene, world_side())


def mask_of(scene: Scene) -> Image.Image:
    """Its exact foreground mask, mode "L", at the embedded model's size."""
    return render_mask(scene, world_side())
