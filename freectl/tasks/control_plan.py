"""A run of `freectl.control` before and after: what was checked, and what it gave."""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from freectl.pipelines.loading import Source
from freectl.tasks.control_inputs import Checked
from freectl.tasks.options import ControlOptions
from freectl.tasks.plan import EditResult


@dataclass(frozen=True)
class ControlResult(EditResult):
    """What control gives; `source` is the first condition as it was read.

    Attributes:
        sources: the conditions as they were read; None for a mesh.
        conditions: the pictures that the method followed, at the working size.
    """

    sources: list[Image.Image | None] = field(default_factory=list)
    conditions: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class ControlPlan:
    """A run whose inputs have all been checked, and of which nothing has run; `source` is None where no model runs."""

    options: ControlOptions
    method: Any
    settings: Any
    conditions: list[Checked]
    appearance: Image.Image | None
    source: Source | None
    warnings: list[str]
