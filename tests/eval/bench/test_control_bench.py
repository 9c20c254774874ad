"""The control benchmark: cases by seed, conditions that show what their masks say, scores, `freectl control`'s path."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer import Typer
from typer.testing import CliRunner

import freectl
from eval.bench.cases import Bench, Case
from eval.bench.control import CASES_A_KIND, DRAWN, control_cases, from_line, to_line
from eval.bench.mini_files import answer, load_mini
from eval.bench.world import drawn, pixels, world_side
from eval.report.command import report
from eval.run.checked import check
from eval.run.command import run
from eval.run.runners import ControlRunner, load_model
from eval.run.variants import variants
from eval.scores.control import ControlScorer
from freectl.errors import InputError
from freectl.mini import MODEL_DIR
from freectl.mini.domain import HELD_OUT
from freectl.mini.judge import load_judge
from freectl.mini.scene import Scene

FEW: dict[str, Any] = {"mask": "attention", "seeds": 2, "seed_steps": 4, "components": 2}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return load_mini("mini-control")


def of_kind(cases: Any, kind: str) -> list[Case]:
    return [case for case in cases if case.kind == kind]


def opaque(scene: Scene) -> np.ndarray:
    """Where the object covers at least half of what is behind it: how little the picture changes with the ground."""
    grounds = [np.asarray(drawn(scene.with_words(background=name)), dtype=float) for name in ("white", "blue")]
    through = (grounds[0] - grounds[1])[..., 0] / (255 - 60)
    return through <= 0.5


def test_there_are_thirty_of_each_kind_and_their_words_are_kept_or_exchanged(bench: Bench) -> None:
    assert len(bench.cases) == 240
    for kind in DRAWN:
        own = of_kind(bench.cases, kind)
        kept = [case.control.targets[0].object in {one.object for one in case.control.shown} for case in own]
        assert len(own) == CASES_A_KIND
        assert sum(kept) == {"pose": 30, "mesh": 0}.get(kind, 15)
        for case in own:
            targets = case.control.targets
            assert len(targets) == len(case.control.shown) == (2 if kind == "two" else 1)
            assert len({one.caption for one in targets}) == 1
            assert (targets[0].object, targets[0].style) not in HELD_OUT
            for shown, target in zip(case.control.shown, targets, strict=True):
                assert (shown.rotation, shown.scale, shown.shift) == (target.rotation, target.scale, target.shift)
    for case in of_kind(bench.cases, "pose"):
        shown, target = case.control.shown[0], case.control.targets[0]
        assert shown.style != target.style
        assert abs(shown.rotation) > 15 or shown.scale < 0.6


def test_cases_are_a_function_of_the_seed(bench: Bench) -> None:
    again, other = control_cases(count=4), load_mini("mini-control:3").cases
    for case in again:
        assert to_line(case) == to_line(bench[case.key])
        assert case.picture().tobytes() == bench[case.key].picture().tobytes()
    assert len(other) == 240
    assert sum(to_line(case) == to_line(bench[case.key]) for case in other) == 0
    read = Bench("x", "control", tuple(from_line(json.loads(json.dumps(to_line(case)))) for case in bench.cases))
    assert read.digest == bench.digest
    for name in ("mini-control:0", "mini-control:x", "mini-control:"):
        with pytest.raises(InputError, match="--bench"):
            load_mini(name)
    for change in ({"prompt": "a cat"}, {"kind": "x"}):
        with pytest.raises(ValueError, match="prompt|kind"):
            from_line(to_line(bench.cases[0]) | change)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_condition_shows_what_its_mask_says(bench: Bench, kind: str) -> None:
    """Ink lies on the objects and reaches their sides; the mask is where renders on two grounds agree."""
    for case in of_kind(bench.cases, kind)[:3]:
        mask = np.asarray(case.mask()) >= 128
        side = case.mask().width
        exact = np.any([opaque(one) for one in case.control.shown], axis=0)
        assert (mask != exact).mean() < 0.004  # rounding at half transparent pixels
        picture = np.asarray(case.picture().convert("L"), dtype=int)
        ground = np.bincount(np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])).argmax()
        ink = np.abs(picture - ground) > 30
        wide = (
            np.asarray(case.mask().filter(ImageFilter.MaxFilter(2 * pixels(8 if kind == "blob" else 2, side) + 1)))
            >= 128
        )
        assert 0 < ink.mean() < 0.9
        assert not (ink & ~wide).any()
        if kind not in ("canny", "pose"):  # a drawing may have parts in the ground's colour
            across, down = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
            found = [np.flatnonzero(ink.any(axis)) for axis in (0, 1)]
            for true, inked in zip((across, down), found, strict=True):
                assert max(abs(true[0] - inked[0]), abs(true[-1] - inked[-1])) <= pixels(
                    8 if kind == "blob" else 2, side
                )
        if kind == "depth":
            assert ((picture > 0) == mask).all()


class Seen:
    """A judge that reads the words of a scene and sees an object everywhere."""

    size = world_side()

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        from freectl.mini import judge

        words = {name: getattr(scene, name) for name in ("object", "style", "background")}
        verdict = judge.Verdict(words, dict.fromkeys(words, 0.25), torch.ones(self.size, self.size))
        monkeypatch.setattr(judge, "judge_pictures", lambda _judge, pictures: [verdict for _ in pictures])


def test_scores_are_words_and_outline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    case = of_kind(bench.cases, "two")[0]
    target = case.control.targets[0]
    covered = (np.asarray(case.mask()) >= 128).mean()
    for scene, words in ((target, 1.0), (target.with_words(background="white", style="noto"), 0.0)):
        scores = ControlScorer(Seen(scene, monkeypatch))(case, Image.new("RGB", (64, 64))).scores
        assert scores["outline"] == pytest.approx(covered, abs=1e-5)
        assert (scores["words"], scores["object"], scores["confidence"]) == (words, 1.0, 0.25)
    with pytest.raises(ValueError, match="no condition"):
        ControlScorer(Seen(target, monkeypatch))(load_mini().cases[0], Image.new("RGB", (64, 64)))


def test_the_judge_agrees_with_exact_answers(bench: Bench) -> None:
    """An answer whose object is the one that was shown has the words and, nearly, the outline."""
    scorer = ControlScorer(load_judge(MODEL_DIR / "judge"))
    own = [
        case
        for case in of_kind(bench.cases, "sketch")
        if case.control.shown[0].artwork == case.control.targets[0].artwork
    ]
    own = [case for case in own if case.control.shown[0].object == case.control.targets[0].object]
    assert own
    for case in own:
        scores = scorer(case, answer(case, scorer.judge.size)).scores
        assert scores["words"] == 1
        assert scores["outline"] > 0.93


def test_a_runners_picture_is_that_of_freectl_control(bench: Bench) -> None:
    case, model = of_kind(bench.cases, "sketch")[1], load_model("mini", 2, 5, device="cpu", dtype="auto")
    asked = {
        "sdedit": {},
        "ctrlx": {},
        "freecontrol[mask=attention,seeds=2,seed_steps=4,components=2]": FEW | {"concept": case.concept},
    }
    for preset in ("official", "paper"):
        (variant,) = variants(f"freecontrol:{preset}", [], [], [])
        assert check(variant, control=True).settings.start == "noise"
    for label, given in asked.items():
        (variant,) = variants(label, [], [], [])
        made = ControlRunner(model, check(variant, control=True)).run(case)
        same = freectl.control(
            case.picture(),
            case.prompt,
            method=variant.method,
            steps=2,
            seed=5,
            source_prompt=case.source_prompt,
            **given,
        )
        assert made.image.tobytes() == same.image.tobytes(), label


def test_a_run_is_resumed_and_reported(tmp_path: Path) -> None:
    app = Typer()
    app.command()(run)
    arguments = ["--bench", "mini-control:1", "--subset", "2", "--steps", "2", "--threads", "1", "--out", str(tmp_path)]
    for _ in range(2):
        result = CliRunner().invoke(app, ["--methods", "sdedit", *arguments])
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"sketch", "silhouette"}
    assert len(lines) == 2
    shown = Typer()
    shown.command()(report)
    assert CliRunner().invoke(shown, [str(tmp_path)]).exit_code == 0
    text = (tmp_path / "report.html").read_text()
    assert "outline IoU" in text
    assert "By kind of condition" in text
    right = sum(line["scores"]["words"] for line in lines)
    assert (text.count('class="right"'), text.count('class="wrong"')) == (right, len(lines) - right)
    assert all(line["cpu_seconds"] > 0 for line in lines)
    lost = f"controlnet[controlnet={tmp_path / 'none'}]"
    for methods, told in (("gan", "gan"), ("style-transfer", "no condition"), (lost, "--controlnet")):
        extra = ["--gan-weights", "no"] if methods == "gan" else []
        refused = CliRunner().invoke(app, ["--methods", methods, *extra, *arguments[:-1], str(tmp_path / "new")])
        assert isinstance(refused.exception, InputError)
        assert told in str(refused.exception)
    refused = CliRunner().invoke(app, ["--methods", "controlnet", "--out", str(tmp_path / "new")])
    assert "mini-control" in str(refused.exception)
    assert not (tmp_path / "new").exists()
