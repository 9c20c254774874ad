"""What scorers share: the form of a result's scores, networks as they see them, and what a missing one gives."""

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from eval.bench.cases import Case
from freectl.errors import FreectlError, InputError

PICTURE_DIGITS = 6
Value = float | None


@dataclass(frozen=True)
class Scored:
    """What was measured of one result: numbers by measure (None: could not be), and facts in words."""

    scores: dict[str, Value]
    facts: dict[str, str] = field(default_factory=dict)


class Clip(Protocol):
    """A CLIP model."""

    name: str

    def text_cosine(self, picture: Image.Image, text: str) -> float:
        """Cosine of the embeddings of picture and text."""

    def picture_cosine(self, one: Image.Image, other: Image.Image) -> float:
        """Cosine of the embeddings of two pictures."""

    def directional(self, picture: Image.Image, source: Image.Image, text: str, source_text: str) -> Value:
        """Cosine of the changes of picture and text from their sources; None where the texts are equal."""

    def accuracy(self, picture: Image.Image, text: str, source_text: str) -> float:
        """1 where the picture is nearer to the text than to the source text, else 0."""


class Distance(Protocol):
    """A distance of two pictures, perhaps of a region (mode "L", white inside) only."""

    name: str

    def __call__(self, one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> float | None:
        """The distance; None where the region is empty."""


class Scorer(Protocol):
    """Measures one result."""

    networks: dict[str, str]
    notes: list[str]

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result` as an answer to `case`."""


def pixel_mse(one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> Value:
    """Mean squared difference of two RGB pictures of one size, pixels 0 to 1, over `region` (white inside) or all.

    None where the region is empty.
    """
    a, b = (np.asarray(picture.convert("RGB"), dtype=np.float64) / 255 for picture in (one, other))
    squares = np.square(a - b).mean(axis=2)
    inside = np.ones(squares.shape, bool) if region is None else np.asarray(region.convert("L")) >= 128
    return float(squares[inside].mean()) if inside.any() else None


def rounded(scores: Mapping[str, Value]) -> dict[str, Value]:
    """Numbers as they are stored; None stays None.

    Raises:
        FreectlError: one is not finite: left out of a mean, it would flatter.
    """
    for key, value in scores.items():
        if value is not None and not np.isfinite(value):
            raise FreectlError(f"the score {key} is {value}: a network or a picture gives no numbers")
    return {key: None if value is None else round(float(value), PICTURE_DIGITS) for key, value in scores.items()}


def optional(load: Callable[[], Any], what: str, notes: list[str]) -> Any:
    """What `load` gives, or None with a note where weights are missing; wrong names are raised."""
    try:
        with redirect_stdout(sys.stderr):  # torchvision tells there what it downloads, and tables go to stdout
            return load()
    except InputError:
        raise
    except (FreectlError, OSError, ImportError) as error:
        notes.append(f"{what}: not measured. {error}")
        return None
