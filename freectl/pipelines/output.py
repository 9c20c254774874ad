"""What the pipelines return."""

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput
from PIL import Image


@dataclass
class FreeControlPipelineOutput(BaseOutput):
    """Output of the pipeline.

    Attributes:
        images: B PIL pictures, or an array or tensor as `output_type` says.
        nsfw_content_detected: one flag a picture where the model has a safety checker, else None.
        trace: energies (mean over the batch) at each guided step.
        cost: the cost record, as in the command line's JSON.
        warnings: what went less than well.
        settings: the method's settings as they were used.
        kept: "L" masks of the working size, white where the input's pixels were kept; None = nowhere.
    """

    images: list[Image.Image] | Any
    nsfw_content_detected: list[bool] | None
    trace: list[dict[str, float]]
    cost: dict[str, Any]
    warnings: list[str]
    settings: Any
    kept: list[Image.Image] | None = None
