"""Label maps as conditions of `freectl control --method gan`."""

import colorsys
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freectl.errors import InputError

CONDITION = "--condition"
ALLOWED = "a path of a grey or palette PNG with a class a pixel, or a picture of mode L or P"
GOLDEN = 0.618034
"""Hues of neighbouring classes are so far apart, of the whole circle."""


def label_map(given: Any, record: dict[str, Any]) -> Image.Image:
    """A map of classes as a palette picture whose numbers are the classes, whatever its colours.

    Args:
        given: as the condition was given. record: of the weights that read it.

    Raises:
        InputError: no map of classes, a class that the weights do not know, or weights that read instances beside.
    """
    from gan_baselines.data.pictures import read_labels
    from gan_baselines.errors import InputError as GanInputError

    model = record["model"]
    if model.get("instances"):
        allowed = "weights trained without instances, or `gan-baselines translate --instances`"
        raise InputError("--gan-weights", "weights that read instance maps beside labels", allowed)
    if isinstance(given, Image.Image):
        values = np.asarray(given) if given.mode in ("L", "P") else None
    elif isinstance(given, str | os.PathLike) and str(given) != "-":
        try:
            values = read_labels(Path(given), CONDITION)
        except GanInputError as error:
            raise InputError(CONDITION, error.found, error.allowed) from error
    else:
        values = given if isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind in "ui" else None
    if values is None:
        raise InputError(CONDITION, "no map of classes", ALLOWED)
    most = min(int(model.get("labels", 0)), 256)
    if (highest := int(values.max())) >= most:
        raise InputError(CONDITION, f"the class {highest}", f"0 to {most - 1}, those of the weights")
    picture = Image.fromarray(values.astype(np.uint8), "L")
    picture.putpalette(palette())
    return picture


def palette() -> list[int]:
    """256 colours, three numbers each; class 0 is white."""
    colours = [(1.0, 1.0, 1.0), *(colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.55, 0.9) for i in range(1, 256))]
    return [round(255 * part) for colour in colours for part in colour]
