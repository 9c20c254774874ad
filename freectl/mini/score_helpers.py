"""Measures of the embedded model's helpers: the judge, and the CLIP."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from freectl.mini.domain import BACKGROUNDS, OBJECTS, STYLES, caption
from freectl.mini.judge import HEADS, Judge, judge_pictures, mask_iou
from freectl.mini.scene import random_scene, render, render_mask
from freectl.mini.tensors import to_tensor

SEED = 1234
WORDS: dict[str, tuple[str, ...]] = {"object": tuple(OBJECTS), "style": STYLES, "background": tuple(BACKGROUNDS)}


def share(hits: Iterable[bool]) -> float | None:
    """The share of hits, 0 to 1; None of none."""
    values = list(hits)
    return round(sum(values) / len(values), 4) if values else None


def judge_scores(judge: Judge, count: int) -> dict[str, Any]:
    """The judge on clean fresh scenes: accuracy a head and of silhouettes' objects, mask IoU, and its confidence.

    "Confident" is a probability of at least one half. On noise and on a mixture of two scenes it should not be.
    """
    rng = random.Random(f"judge/{SEED}")
    scenes = [random_scene(rng) for _ in range(count)]
    pictures = [render(scene, judge.size) for scene in scenes]
    verdicts = judge_pictures(judge, pictures)
    scores: dict[str, Any] = {}
    for head in HEADS:
        right = [v.labels[head] == getattr(s, head) for v, s in zip(verdicts, scenes, strict=True)]
        scores[f"judge_{head}_accuracy"] = share(right)
        if head == "object":
            flat = [hit for hit, s in zip(right, scenes, strict=True) if s.style == "silhouette"]
            scores["judge_object_accuracy_silhouette"] = share(flat)
    ious = [mask_iou(v.mask, render_mask(s, judge.size)) for v, s in zip(verdicts, scenes, strict=True)]
    scores["judge_mask_iou"] = round(sum(ious) / len(ious), 4)
    clean = to_tensor(pictures[:200])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for name, batch in (("scenes", clean), ("noise", noise), ("mixtures", (clean + clean.roll(1, 0)) / 2)):
        with torch.no_grad():
            top = judge(batch)[0]["object"].softmax(-1).amax(-1)
        scores[f"judge_object_confidence_on_{name}"] = round(float(top.mean()), 4)
        scores[f"judge_confident_share_on_{name}"] = share((top >= 0.5).tolist())
    return scores


def clip_scores(folder: Path, count: int) -> dict[str, Any]:
    """Retrieval: how often a fresh scene is nearest to its own caption among those that differ in one attribute."""
    from freectl.mini.clip import load_clip

    clip = load_clip(folder)
    size, _ = clip.model.visual.image_size
    rng = random.Random(f"clip/{SEED}")
    scenes = [random_scene(rng) for _ in range(count)]
    texts = [caption(s, o, b) for o in OBJECTS for s in STYLES for b in BACKGROUNDS]
    embedded = dict(zip(texts, clip.texts(texts), strict=True))
    pictures = torch.cat([clip.pictures([render(s, size) for s in scenes[i : i + 100]]) for i in range(0, count, 100)])
    scores: dict[str, Any] = {}
    for attribute, words in WORDS.items():
        hits = []
        for scene, picture in zip(scenes, pictures, strict=True):
            said = {"style": scene.style, "object": scene.object, "background": scene.background}
            rivals = torch.stack([embedded[caption(**{**said, attribute: word})] for word in words])
            hits.append(words[int((rivals @ picture).argmax())] == said[attribute])
        scores[f"clip_{attribute}_retrieval"] = share(hits)
    return scores
