"""Scores of one result, by benchmark layout; networks are injectable, and a missing one gives null with a note."""

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image, ImageChops

from eval.cases import Case, Layout
from freectl.pipelines.call_inputs import resized

PICTURE_DIGITS = 6
Value = float | None


@dataclass(frozen=True)
class Scored:
    """What was measured of one result: numbers by measure (None: could not be), and facts in words."""

    scores: dict[str, Value]
    facts: dict[str, str] = field(default_factory=dict)


class Clip(Protocol):
    """A CLIP model."""

    name: str

    def text_cosine(self, picture: Image.Image, text: str) -> float:
        """Cosine of the embeddings of picture and text."""

    def picture_cosine(self, one: Image.Image, other: Image.Image) -> float:
        """Cosine of the embeddings of two pictures."""

    def directional(self, picture: Image.Image, source: Image.Image, text: str, source_text: str) -> float:
        """Cosine of the change from source to picture with the change from source text to text; may be NaN."""

    def accuracy(self, picture: Image.Image, text: str, source_text: str) -> float:
        """1 where the picture is nearer to the text than to the source text, else 0."""


class Distance(Protocol):
    """A distance of two pictures, perhaps of a region (mode "L", white inside) only."""

    name: str

    def __call__(self, one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> float | None:
        """The distance; None where the region is empty."""


class Scorer(Protocol):
    """Measures one result."""

    networks: dict[str, str]
    notes: list[str]

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result` as an answer to `case`."""


def pixel_mse(one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> Value:
    """Mean squared difference of two RGB pictures of one size, pixels 0 to 1, over `region` (white inside) or all.

    None where the region is empty.
    """
    a, b = (np.asarray(picture.convert("RGB"), dtype=np.float64) / 255 for picture in (one, other))
    squares = np.square(a - b).mean(axis=2)
    inside = np.ones(squares.shape, bool) if region is None else np.asarray(region.convert("L")) >= 128
    return float(squares[inside].mean()) if inside.any() else None


class MiniScorer:
    """Scores against the exact answer of an edit of a scene.

    Args:
        judge: see `freectl.mini.judge`.
        clip: the embedded model's CLIP, or None. structure: self-similarity on the keys of its ViT, or None.
        notes: what could not be loaded.
    """

    def __init__(
        self, judge: Any, clip: Clip | None = None, structure: Distance | None = None, notes: list[str] | None = None
    ) -> None:
        self.judge, self.clip, self.structure, self.notes = judge, clip, structure, notes or []
        self.networks = {"judge": "freectl mini judge"}
        self.networks |= {"CLIP": clip.name} if clip else {}
        self.networks |= {"self-similarity": structure.name} if structure else {}

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result`.

        Raises:
            ValueError: the case has no exact answer.
        """
        from freectl.mini.judge import HEADS, judge_pictures, mask_iou
        from freectl.mini.scene import render, render_mask

        if case.scenes is None or case.mask is None:
            raise ValueError(f"{case.key} has no exact answer")
        source, target = case.scenes
        answer = render(target, result.width)
        verdict = judge_pictures(self.judge, [result])[0]
        right = {head: verdict.labels[head] == getattr(target, head) for head in HEADS}
        changed = [head for head in HEADS if getattr(source, head) != getattr(target, head)]
        outside = ImageChops.invert(resized(case.mask(), result.size).convert("L"))
        scores: dict[str, Value] = {head: float(hit) for head, hit in right.items()}
        scores |= {
            "target": float(all(right[head] for head in changed)),
            "all_right": float(all(right.values())),
            "iou": mask_iou(verdict.mask, render_mask(target)),
            "mse": pixel_mse(result, answer),
            "background_mse": pixel_mse(result, answer, outside),
            "clip": self.clip.text_cosine(result, case.prompt) if self.clip else None,
            "clip_distance": 1 - self.clip.picture_cosine(result, answer) if self.clip else None,
            "self_similarity": self.structure(result, case.picture()) if self.structure else None,
        }
        seen = " ".join(verdict.labels[head] for head in ("style", "object", "background"))
        return Scored(rounded(scores), {"seen": seen})


def rounded(scores: Mapping[str, Value]) -> dict[str, Value]:
    """Numbers as they are stored; what is not finite (PSNR of equal pictures) becomes None."""
    return {
        key: None if value is None or not np.isfinite(value) else round(float(value), PICTURE_DIGITS)
        for key, value in scores.items()
    }


def scorer_for(layout: Layout, device: str = "auto", clip: str | None = None) -> Scorer:
    """The scorer of a layout with all networks that this machine has; what is missing is in its notes.

    Args:
        clip: name of the CLIP, see `eval.metrics.load_clip`; None is the embedded one for the mini benchmarks, and
            what most papers use elsewhere.
    """
    from eval import networks
    from eval.metrics.clip import DEFAULT
    from eval.picture_scorers import PictureScorer, PieScorer
    from freectl.pipelines.loading import resolve_device

    notes: list[str] = []
    found = resolve_device(device)[0]
    if layout == "mini":
        from freectl.mini import MODEL_DIR
        from freectl.mini.judge import load_judge

        own, structure = (
            optional(networks.mini_networks, "CLIP, CLIP distance and self-similarity", notes) or (None,) * 2
        )
        if clip not in (None, "mini"):
            own = optional(lambda: networks.clip_scores(clip, found), "CLIP and CLIP distance", notes)
        return MiniScorer(load_judge(MODEL_DIR / "judge"), own, structure, notes)
    scores = optional(lambda: networks.clip_scores(clip or DEFAULT, found), "CLIP", notes)
    mode: Literal["pie", "splice"] = "pie" if layout == "pie" else "splice"
    dino = optional(lambda: networks.dino_structure(mode, found), "self-similarity", notes)
    perceptual = optional(lambda: networks.lpips_distance(networks.LPIPS_NET[layout]), "LPIPS", notes)
    scorer = PieScorer if layout == "pie" else PictureScorer
    return scorer(scores, dino, perceptual, networks.background_distances(perceptual), notes)


def optional(load: Callable[[], Any], what: str, notes: list[str]) -> Any:
    """What `load` gives, or None with a note where weights are missing; wrong names are raised."""
    from freectl.errors import FreectlError, InputError

    try:
        with redirect_stdout(sys.stderr):  # torchvision tells there what it downloads, and tables go to stdout
            return load()
    except InputError:
        raise
    except (FreectlError, OSError, ImportError) as error:
        notes.append(f"{what}: not measured. {error}")
        return None
