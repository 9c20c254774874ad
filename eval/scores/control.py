"""Scores of pictures under conditions of the embedded world, whose words and outlines are known exactly."""

from typing import Any

from PIL import Image

from eval.bench.cases import Case
from eval.bench.control_pictures import together, true_mask
from eval.scores.base import Clip, Scored, Value, rounded


class ControlScorer:
    """Words as the judge reads them, outline as it sees it.

    Args:
        judge: see `freectl.mini.judge`. clip: the embedded model's CLIP, or None. notes: what could not be loaded.
    """

    def __init__(self, judge: Any, clip: Clip | None = None, notes: list[str] | None = None) -> None:
        self.judge, self.clip, self.notes = judge, clip, notes or []
        self.networks = {"judge": "freectl mini judge"} | ({"CLIP": clip.name} if clip else {})

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result`.

        Raises:
            ValueError: the case is no condition of scenes.
        """
        from freectl.mini.judge import HEADS, judge_pictures, mask_iou

        if case.control is None:
            raise ValueError(f"{case.key} is no condition of scenes")
        target, answer = case.control.targets[0], together(case.control.targets, result.width)
        verdict = judge_pictures(self.judge, [result])[0]
        right = {head: verdict.labels[head] == getattr(target, head) for head in HEADS}
        scores: dict[str, Value] = {head: float(hit) for head, hit in right.items()}
        scores |= {
            "words": float(all(right.values())),
            "outline": mask_iou(verdict.mask, true_mask(case.control.shown, self.judge.size)),
            "confidence": verdict.confidence["object"],
            "clip": self.clip.text_cosine(result, case.prompt) if self.clip else None,
            "clip_distance": 1 - self.clip.picture_cosine(result, answer) if self.clip else None,
        }
        seen = " ".join(verdict.labels[head] for head in ("style", "object", "background"))
        return Scored(rounded(scores), {"seen": seen})
