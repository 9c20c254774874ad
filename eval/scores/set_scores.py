"""Scores of whole sets of results, by variant: KID and FID, CMMD, coverage."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eval.bench.cases import Layout
from eval.files import read_picture
from eval.scores.base import optional
from eval.scores.metrics import cmmd, coverage, features_of, inception_features, load_clip, set_summary
from eval.scores.metrics.clip import CMMD_DEFAULT
from eval.scores.metrics.sets import BATCH, Features
from eval.scores.networks import to_tensor

EXACT: tuple[Layout, ...] = ("mini", "control")
"""Layouts with exact answers, and the embedded world's networks."""
SIDE = 299
"""Side in px of the pictures that Inception gets."""


def judge_features(judge: Any) -> tuple[Features, str]:
    """The judge's pooled features (B, 320) of pictures (B, 3, size, size), 0 to 1, and their name."""

    def read(pictures: Tensor) -> Tensor:
        found: list[Tensor] = []
        handle = judge.out["object"].register_forward_pre_hook(lambda _m, inputs: found.append(inputs[0]))
        try:
            judge(pictures * 2 - 1)
        finally:
            handle.remove()
        return found[0]

    return read, "pooled features of the freectl mini judge"


@torch.no_grad()
def compute(folder: Path, lines: Sequence[dict[str, Any]], layout: Layout, clip: str | None = None) -> dict[str, Any]:
    """Scores by variant; results are compared with the exact answers of the same cases, or with the inputs.

    Args:
        folder: that the pictures of the result `lines` lie in.
        clip: of CMMD; None is the embedded one for the mini benchmarks, the paper's elsewhere.
    """
    notes: list[str] = []
    kind = "answers" if layout in EXACT else "inputs"
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_variant.setdefault(line["variant"], []).append(line)
    several = {variant: own for variant, own in by_variant.items() if len(own) > 1}
    features, network, side = None, None, SIDE
    if several:
        features = optional(lambda: _features(layout), "KID, FID and coverage", notes)
        side = _judge().size if layout in EXACT and features else SIDE
        network = optional(lambda: load_clip(clip or ("mini" if layout in EXACT else CMMD_DEFAULT)), "CMMD", notes)
    found: dict[str, Any] = {}
    for variant, own in several.items():
        made = [folder / line["picture"] for line in own]
        real = [folder / kind / f"{line['case']}.png" for line in own]
        found[variant] = {"count": len(own), **_scores(real, made, features, network, side)}
    names = {"KID, FID and coverage": features[1] if features else None, "CMMD": network.name if network else None}
    return {"reference": "exact answers" if kind == "answers" else "inputs", "variants": found,
            "networks": {what: name for what, name in names.items() if name}, "notes": notes}  # fmt: skip


def _features(layout: Layout) -> tuple[Features, str]:
    return judge_features(_judge()) if layout in EXACT else inception_features()


def _judge() -> Any:
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge

    return load_judge(MODEL_DIR / "judge")


def _scores(
    real: Sequence[Path], made: Sequence[Path], features: tuple[Features, str] | None, network: Any, side: int
) -> dict[str, float]:
    scores = {}
    if features:
        one, other = (stored_features(paths, features[0], side) for paths in (real, made))
        scores = {result.name.lower(): result.mean for result in set_summary(one, other, features[1])}
        scores["coverage"] = coverage(one, other, features[1]).mean
    if network:
        one, other = (stored_features(paths, network.encode_image) for paths in (real, made))
        scores["cmmd"] = cmmd(one, other, network.name).mean
    return {key: round(value, 6) for key, value in scores.items()}


@torch.no_grad()
def stored_features(paths: Sequence[Path], network: Features, side: int | None = None) -> Tensor:
    """Features (N, D) of stored pictures, of which only a batch is in memory at a time.

    Args:
        side: in px, to which pictures are resized first; None leaves them as they are.
    """
    found = []
    for start in range(0, len(paths), BATCH):
        pictures = [read_picture(path) for path in paths[start : start + BATCH]]
        if side is not None:
            pictures = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
        # pictures of a manifest may differ in size, and only equal ones make a tensor
        found += [features_of(to_tensor(*own), network) for _, own in groupby(pictures, key=lambda one: one.size)]
    return torch.cat(found)
