"""Semantic segmentation by a transformers model, default UPerNet with ConvNeXt (arXiv 1807.10221), in flat colours."""

import numpy as np
from PIL import Image

from freectl.preprocess.registry import Apply, Preprocess
from freectl.preprocess.weights import check_model, load, small

ROOT = 1.2207440846057596


def check(preprocess: Preprocess) -> None:
    """Raises InputError: neither a folder nor a hub id."""
    check_model(preprocess)


def palette(classes: int) -> np.ndarray:
    """Colours (classes, 3), 0 to 255: multiples of three irrational steps through the RGB cube, so spread evenly.

    The steps are 1/g, 1/g^2, 1/g^3 with g^4 = g + 1 (Roberts' R3 sequence).
    """
    steps = ROOT ** -np.arange(1.0, 4.0)
    return np.floor((0.5 + np.arange(classes)[:, None] * steps) % 1 * 256).astype(np.uint8)


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """The class of every pixel as its colour."""
    import torch
    from transformers import AutoModelForSemanticSegmentation

    model, processor = load(preprocess, AutoModelForSemanticSegmentation, device)

    def apply(image: Image.Image) -> Image.Image:
        inputs = processor(images=image, return_tensors="pt").to(device)
        with torch.no_grad():
            output = model(**inputs)
        classes = processor.post_process_semantic_segmentation(output, target_sizes=[image.size[::-1]])[0].cpu().numpy()
        return Image.fromarray(palette(max(model.config.num_labels, int(classes.max()) + 1))[classes])

    return small(apply)
