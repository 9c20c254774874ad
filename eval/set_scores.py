"""Scores of whole sets of results, by variant: KID and FID, CMMD, coverage. Kept in sets.json beside the results."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eval.cases import Layout
from eval.metrics import cmmd, coverage, features_of, inception_features, load_clip, set_summary
from eval.metrics.clip import DEFAULT
from eval.metrics.sets import Features
from eval.networks import to_tensor
from eval.scoring import optional
from eval.store import Store, read_picture

FILE = "sets.json"
SIDE: dict[Layout, int] = {"mini": 64, "pie": 299, "ti2i": 299, "plain": 299}
"""Side in px at which a set is compared: the judge's, or Inception's."""


def judge_features(judge: Any) -> tuple[Features, str]:
    """The judge's pooled features (B, 320) of pictures (B, 3, 64, 64), 0 to 1, and their name."""

    def read(pictures: Tensor) -> Tensor:
        found: list[Tensor] = []
        handle = judge.out["object"].register_forward_pre_hook(lambda _m, inputs: found.append(inputs[0]))
        try:
            judge(pictures * 2 - 1)
        finally:
            handle.remove()
        return found[0]

    return read, "pooled features of the freectl mini judge"


def compute(store: Store, layout: Layout, clip: str | None = None) -> dict[str, Any]:
    """Scores by variant; results are compared with the exact answers of the same cases, or with the inputs.

    Args:
        clip: of CMMD; None is the embedded one for the mini benchmarks, the published default elsewhere.
    """
    notes: list[str] = []
    kind = "answers" if layout == "mini" else "inputs"
    features = optional(lambda: _features(layout), "KID, FID and coverage", notes)
    network = optional(lambda: load_clip(clip or ("mini" if layout == "mini" else DEFAULT)), "CMMD", notes)
    found: dict[str, Any] = {}
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for line in store.lines():
        by_variant.setdefault(line["variant"], []).append(line)
    for variant, lines in by_variant.items():
        if len(lines) < 2:
            continue
        made = _pictures([store.folder / line["picture"] for line in lines], SIDE[layout])
        real = _pictures([store.folder / kind / f"{line['case']}.png" for line in lines], SIDE[layout])
        found[variant] = {"count": len(lines), **_scores(real, made, features, network)}
    names = {"KID, FID and coverage": features[1] if features else None, "CMMD": network.name if network else None}
    return {"reference": "exact answers" if kind == "answers" else "inputs", "variants": found,
            "networks": {what: name for what, name in names.items() if name}, "notes": notes}  # fmt: skip


def _features(layout: Layout) -> tuple[Features, str]:
    if layout != "mini":
        return inception_features()
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge

    return judge_features(load_judge(MODEL_DIR / "judge"))


def _scores(real: Tensor, made: Tensor, features: tuple[Features, str] | None, network: Any) -> dict[str, float]:
    scores = {}
    if features:
        one, other = (features_of(pictures, features[0]) for pictures in (real, made))
        scores = {result.name.lower(): result.mean for result in set_summary(one, other, features[1])}
        scores["coverage"] = coverage(one, other, features[1]).mean
    if network:
        scores["cmmd"] = cmmd(real, made, network).mean
    return {key: round(value, 6) for key, value in scores.items()}


def _pictures(paths: list[Path], side: int) -> Tensor:
    return to_tensor(*(read_picture(path).resize((side, side), Image.Resampling.LANCZOS) for path in paths))


@torch.no_grad()
def write(store: Store, layout: Layout, clip: str | None = None) -> dict[str, Any]:
    """Compute and store; returns what was stored.

    Raises:
        FreectlError: the folder is not writable.
    """
    found = compute(store, layout, clip)
    store.write_text(FILE, json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found
