"""Scores of label maps, as in the label-to-photo literature (Isola et al. 2017, section 4.1; Long et al. 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class SegmentationScores:
    """Shares, 0 to 1: of pixels labelled right, of each class's pixels (mean over classes), and mean class IoU."""

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float


def confusion(predicted: Tensor, true: Tensor, classes: int, ignore: int | None = None) -> Tensor:
    """Counts (classes, classes), rows the true class, of label maps of equal shape.

    Raises:
        ValueError: other shapes, or labels outside 0 to classes - 1.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"label maps {tuple(predicted.shape)} and {tuple(true.shape)}; expected equal shapes")
    kept = torch.ones_like(true, dtype=torch.bool) if ignore is None else true != ignore
    predicted, true = predicted[kept].long(), true[kept].long()
    for labels in (predicted, true):
        if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {classes - 1}")
    return torch.bincount(true * classes + predicted, minlength=classes**2).view(classes, classes)


def segmentation_scores(counts: Tensor) -> SegmentationScores:
    """Scores of a confusion matrix; classes that occur in neither map are left out of the means."""
    counts = counts.double()
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = true + predicted - right
    return SegmentationScores(
        float(right.sum() / counts.sum()),
        float((right / true)[true > 0].mean()),
        float((right / union)[union > 0].mean()),
    )


def judge_label_maps(judge: Any, pictures: Sequence[Image.Image], threshold: float = 0.5) -> Tensor:
    """Label maps (B, size, size) of the judge's size: 0 background, 1 + i the i-th object, by its two heads."""
    from freectl.mini.judge import judge_pictures

    labels = list(judge.heads["object"])
    verdicts = judge_pictures(judge, pictures)
    return torch.stack([(v.mask >= threshold).long() * (1 + labels.index(v.labels["object"])) for v in verdicts])
