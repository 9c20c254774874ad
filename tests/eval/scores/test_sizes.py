"""Benchmarks are scenes and words: drawn at 64 and at 128 px they are the same cases, and score alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.bench.cases import Bench
from eval.bench.control_pictures import true_mask
from eval.bench.manifests import load_bench
from eval.bench.mini_files import answer, load_mini, sized
from eval.bench.world import world_side
from eval.scores.control import ControlScorer
from eval.scores.mini import MiniScorer
from freectl.mini import judge
from freectl.mini.domain import ARTWORK
from freectl.mini.scene import render, render_mask

SIDES = (64, 128)
WORDS = {"object": "cat", "style": "noto", "background": "white"}
OTHER_ARTWORK = ("noto",)
"""Whose drawings for large pictures differ a little in outline from those for small ones: left out where exact
outlines are compared."""


class Seeing:
    """A judge of some size that sees the masks that it is given."""

    def __init__(self, size: int, masks: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = size
        verdicts = iter([judge.Verdict(WORDS, dict.fromkeys(WORDS, 0.5), torch.tensor(np.asarray(one) / 255.0))
                         for one in masks])  # fmt: skip
        monkeypatch.setattr(judge, "judge_pictures", lambda _judge, pictures: [next(verdicts) for _ in pictures])


def of_two(name: str) -> list[Bench]:
    return [sized(load_mini(name), side) for side in SIDES]


def same_drawings(case: Any) -> bool:
    scenes = case.scenes or (*case.control.shown, *case.control.targets)
    return all(scene.artwork in ARTWORK and scene.artwork not in OTHER_ARTWORK for scene in scenes)


def test_an_unchanged_input_scores_alike_at_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = of_two("mini")
    found = []
    cases = [case.key for case in small.cases if same_drawings(case)][::36]
    for bench, side in zip((small, large), SIDES, strict=True):
        masks = [render_mask(bench[key].scenes[0], side) for key in cases]
        scorer = MiniScorer(Seeing(side, masks, monkeypatch))
        found.append([scorer(bench[key], bench[key].picture()).scores for key in cases])
    assert len(cases) > 3
    for one, other in zip(*found, strict=True):
        assert other["iou"] == pytest.approx(one["iou"], abs=0.03)
        assert other["background_mse"] == pytest.approx(one["background_mse"], abs=1e-4)
        # the larger picture has sharper edges inside the drawings
        assert other["mse"] == pytest.approx(one["mse"], rel=0.3, abs=1e-3)
        assert (one["object"], one["style"]) == (other["object"], other["style"])


def test_outlines_of_conditions_score_alike_at_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = of_two("mini-control")
    assert small.digest == large.digest
    cases = [case.key for case in small.cases if same_drawings(case)][::25]
    found = []
    for bench, side in zip((small, large), SIDES, strict=True):
        masks = [true_mask(bench[key].control.targets, side) for key in cases]
        scorer = ControlScorer(Seeing(side, masks, monkeypatch))
        found.append([scorer(bench[key], Image.new("RGB", (side, side))).scores["outline"] for key in cases])
    assert len(cases) > 3
    assert found[1] == pytest.approx(found[0], abs=0.03)
    for key in cases:
        pictures = [np.asarray(bench[key].picture().convert("L").resize((64, 64), Image.Resampling.BOX), dtype=float)
                    for bench in (small, large)]  # fmt: skip
        # lines of edges are as thin as the preprocessor makes them
        assert np.abs(pictures[0] - pictures[1]).mean() / 255 < (0.08 if key.startswith("canny") else 0.04)


def test_pictures_have_the_size_of_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "judge").mkdir(parents=True)
    (model / "judge" / "config.json").write_text(json.dumps({"size": 128}))
    for name in ("mini", "mini-control:2", "mini-style:noto:fluent"):
        own, further = (load_bench(name, model=str(folder)) for folder in (model, model / "flow"))
        plain = load_bench(name, model=str(tmp_path / "elsewhere"))
        assert own.cases[0].picture().size == further.cases[0].picture().size == (128, 128)
        assert plain.cases[0].picture().size == (world_side(),) * 2
        assert own.digest == plain.digest
        assert own.cases[0].mask().size == answer(own.cases[0], 128).size == (128, 128)
    looks = next(case for case in load_bench("mini", model=str(model)).cases if case.appearance)
    assert looks.appearance().size == (128, 128)
    assert answer(looks, 128).tobytes() == render(looks.scenes[1], 128).tobytes()
