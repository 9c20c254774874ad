"""Scores of edits of the embedded world, which have exact answers."""

from typing import Any

from PIL import Image, ImageChops

from eval.bench.cases import Case
from eval.bench.mini import either_mask
from eval.scores.base import Clip, Distance, Scored, Value, pixel_mse, rounded
from freectl.mini.scene import Scene, render, render_mask


class MiniScorer:
    """Scores against the exact answer of an edit of a scene, drawn at the size of the result.

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
        from freectl.mini.judge import HEADS, judge_pictures

        if case.scenes is None:
            raise ValueError(f"{case.key} has no exact answer")
        source, target = case.scenes
        side = result.width
        answer = render(target, side)
        verdict = judge_pictures(self.judge, [result])[0]
        right = {head: verdict.labels[head] == getattr(target, head) for head in HEADS}
        changed = [head for head in HEADS if getattr(source, head) != getattr(target, head)]
        outside = ImageChops.invert(either_mask(source, target, side))
        scores: dict[str, Value] = {head: float(hit) for head, hit in right.items()}
        scores |= {
            "target": float(all(right[head] for head in changed)),
            "all_right": float(all(right.values())),
            "iou": outline_iou(verdict, target),
            "mse": pixel_mse(result, answer),
            "background_mse": pixel_mse(result, answer, outside),
            "clip": self.clip.text_cosine(result, case.prompt) if self.clip else None,
            "clip_distance": 1 - self.clip.picture_cosine(result, answer) if self.clip else None,
            "self_similarity": self.structure(result, render(source, side)) if self.structure else None,
        }
        seen = " ".join(verdict.labels[head] for head in ("style", "object", "background"))
        return Scored(rounded(scores), {"seen": seen})


def outline_iou(verdict: Any, scene: Scene) -> float:
    """IoU of the foreground that the judge sees with a scene's exact mask, at the judge's size."""
    from freectl.mini.judge import mask_iou

    return mask_iou(verdict.mask, render_mask(scene, len(verdict.mask)))
