"""Depth by a transformers model (relative, near is bright), default Depth Anything V2 small (arXiv 2406.09414)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from freectl.errors import FreectlError
from freectl.preprocess.registry import Apply, Preprocess
from freectl.preprocess.weights import check_model, load, small


def check(preprocess: Preprocess) -> None:
    """Raises InputError: neither a folder nor a hub id."""
    check_model(preprocess)


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """Depth scaled to black at the farthest and white at the nearest point."""
    from freectl.preprocess.arrays import to_picture

    depth = estimator(preprocess, device)
    return small(lambda image: to_picture(depth(image)))


def estimator(preprocess: Preprocess, device: str) -> Callable[[Image.Image], Any]:
    """Function from a picture to its depth (H, W), 0 far to 1 near.

    Raises:
        FreectlError: the weights cannot be had; or, when called, the depth is the same everywhere.
    """
    from transformers import AutoModelForDepthEstimation, pipeline

    model, processor = load(preprocess, AutoModelForDepthEstimation, device)
    run = pipeline("depth-estimation", model=model, image_processor=processor, device=device)

    def depth(image: Image.Image) -> Any:
        with np.errstate(invalid="ignore"):  # the pipeline also makes a picture, of which a flat map has none
            values = run(image)["predicted_depth"].detach().float().cpu().numpy()
        low, high = float(values.min()), float(values.max())
        if not high > low:
            raise FreectlError(f"--preprocess {preprocess.kind.name}: the same depth everywhere; try another picture")
        return (values - low) / (high - low)

    return depth
