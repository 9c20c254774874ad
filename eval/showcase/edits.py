"""The showcase's edits: what they are, and what the judge sees in their results."""

from dataclasses import dataclass
from typing import Any

import yaml
from PIL import Image

from eval.files import PROMPTS
from eval.scores.mini import outline_iou
from freectl.mini import MODEL_DIR
from freectl.mini.domain import ARTWORK
from freectl.mini.export import scenes
from freectl.mini.scene import Scene


def plan() -> dict[str, Any]:
    """The contents of prompts/showcase.yaml."""
    return yaml.safe_load((PROMPTS / "showcase.yaml").read_text())


@dataclass(frozen=True)
class Case:
    """One edit with an exact answer: the scene, the scene it should become, and the word that changes."""

    source: Scene
    target: Scene
    kind: str


def ten_cases() -> list[Case]:
    """The ten edits."""
    shown = plan()
    drawn = list(scenes(10, shown["ten_seed"], ARTWORK))
    return [Case(drawn[i], drawn[i].with_words(**change), next(iter(change))) for i, change in shown["ten"]]


def judged(cases: list[Case], results: list[Image.Image]) -> list[dict[str, Any]]:
    """For each case: target word reached, all words right, foreground IoU with the true mask of the answer."""
    from freectl.mini.judge import HEADS, judge_pictures, load_judge

    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), results)
    rows = []
    for case, verdict in zip(cases, verdicts, strict=True):
        right = {head: verdict.labels[head] == getattr(case.target, head) for head in HEADS}
        rows.append(
            {
                "prompt": case.target.caption,
                "kind": case.kind,
                "seen": " ".join(verdict.labels[head] for head in ("style", "object", "background")),
                "reached": right[case.kind],
                "all_right": all(right.values()),
                "iou": round(outline_iou(verdict, case.target), 3),
            }
        )
    return rows
