"""Metrics: functions of tensors with injectable networks; each result names the network that it used.

Pictures are (B, 3, H, W), floating point, 0 to 1, RGB.
"""

from eval.scores.metrics.base import MetricResult
from eval.scores.metrics.clip import (
    ClipNetwork,
    clip_accuracy,
    clip_directional,
    clip_distance,
    clip_score,
    load_clip,
)
from eval.scores.metrics.pixels import load_lpips, lpips, mse, psnr, ssim
from eval.scores.metrics.segmentation import SegmentationScores, confusion, judge_label_maps, segmentation_scores
from eval.scores.metrics.self_similarity import (
    KeyNetwork,
    class_similarity,
    clip_key_network,
    load_dino,
    self_similarity,
    self_similarity_distance,
    timm_classes,
    timm_keys,
)
from eval.scores.metrics.separability import compare, linear_accuracy, pca_features, pooled_layers, raw_pixels
from eval.scores.metrics.sets import cmmd, coverage, features_of, fid, inception_features, kid, set_summary

__all__ = [
    "ClipNetwork",
    "KeyNetwork",
    "MetricResult",
    "SegmentationScores",
    "class_similarity",
    "clip_accuracy",
    "clip_directional",
    "clip_distance",
    "clip_key_network",
    "clip_score",
    "cmmd",
    "compare",
    "confusion",
    "coverage",
    "features_of",
    "fid",
    "inception_features",
    "judge_label_maps",
    "kid",
    "linear_accuracy",
    "load_clip",
    "load_dino",
    "load_lpips",
    "lpips",
    "mse",
    "pca_features",
    "pooled_layers",
    "psnr",
    "raw_pixels",
    "segmentation_scores",
    "self_similarity",
    "self_similarity_distance",
    "set_summary",
    "ssim",
    "timm_classes",
    "timm_keys",
]
