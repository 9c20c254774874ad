"""What an edit is between its parts: a checked plan, and a result."""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from freectl.files import pictures
from freectl.pipelines.loading import Source
from freectl.tasks.options import EditOptions


@dataclass(frozen=True)
class EditResult:
    """What an edit gives.

    Attributes:
        images: results at the input's size; one. RGB, with `keep_alpha` RGBA where the input is transparent.
        source: the input as it was read, RGB; above 16 megapixels smaller than the result.
        record: the JSON record without "output".
        trace: energies at each guided step (methods with guidance).
        notes: device, dtype and why.
        seeded: whether anything was drawn from the seed.
        kept: "L" masks of the working size, white where the input's pixels were kept; None = nowhere.
    """

    images: list[Image.Image]
    source: Image.Image
    record: dict[str, Any]
    trace: list[dict[str, float]]
    notes: list[str] = field(default_factory=list)
    seeded: bool = True
    kept: list[Image.Image] | None = None

    @property
    def image(self) -> Image.Image:
        """The first result."""
        return self.images[0]

    @property
    def cost(self) -> dict[str, Any]:
        """The cost record."""
        return self.record["cost"]

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings."""
        return self.record["settings"]


@dataclass(frozen=True)
class Plan:
    """A run whose inputs have all been checked, and of which nothing has run; no `source` = no diffusion model."""

    options: EditOptions
    method: Any
    settings: Any
    picture: pictures.LoadedImage
    mask: Image.Image | str | None
    appearance: Image.Image | None
    source: Source | None
    warnings: list[str]
    keep: Image.Image | str | None = None
