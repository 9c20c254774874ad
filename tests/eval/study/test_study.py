"""The study: balanced questions, a page that hides its key, a run through a real browser, scores with intervals."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from browser import browser, layout_faults, needs_chromium
from result_kit import VARIANTS
from typer.testing import CliRunner

from eval.results.reading import read
from eval.scores.intervals import wilson
from eval.study.command import app
from eval.study.page import page, questions_for
from eval.study.scores import Sample, interval, markdown, scores_of
from freectl.errors import InputError

KEY = {
    "study": "s",
    "questions": {
        "q0": {"task": "real", "names": ["real", "a"], "practice": False},
        "q1": {"task": "real", "names": ["a", "real"], "practice": True},
        "q2": {"task": "prefer", "names": ["b", "a"], "practice": False},
        "q3": {"task": "caption", "names": ["a"], "practice": False},
    },
}


def answered(participant: str, *values: object) -> tuple[str, dict]:
    answers = [{"id": f"q{index}", "answer": value} for index, value in enumerate(values)]
    return f"{participant}.json", {"study": "s", "participant": participant, "answers": answers}


def test_answers_count_as_their_question_means() -> None:
    found = scores_of(KEY, [answered("x", 1, 0, 1, "somewhat"), answered("y", 0, 0, "same", "yes")])
    assert found["tasks"]["real"]["a"]["mean"] == 0.5  # the practice pair does not count
    assert found["tasks"]["real"]["a"]["answers"] == 2
    assert found["tasks"]["prefer"]["a"]["mean"] == 0.75
    assert found["tasks"]["prefer"]["b"]["mean"] == 0.25
    assert found["tasks"]["caption"]["a"]["mean"] == 0.75
    assert [(one["one"], one["other"], one["mean"]) for one in found["pairs"]] == [("a", "b", 0.75)]
    assert "| a over b | 75.0 |" in markdown(found)


@pytest.mark.parametrize(
    "question",
    [
        {"task": "real", "names": ["a", "b"], "practice": False},
        {"task": "prefer", "names": ["a", "real"], "practice": False},
        {"task": "caption", "names": ["a", "b"], "practice": False},
        {"task": "taste", "names": ["a"], "practice": False},
        {"names": ["a"]},
    ],
)
def test_a_key_whose_questions_do_not_fit_is_refused(question: dict) -> None:
    with pytest.raises(InputError, match=r"KEY: found the key: questions\.q0"):
        scores_of({"study": "s", "questions": {"q0": question}}, [answered("x", 1)])


def test_people_who_agree_with_themselves_widen_the_interval() -> None:
    values = [1.0] * 40 + [0.0] * 40
    one = interval(Sample(values, [0] * 80))
    assert one == pytest.approx(wilson(0.5, 80))
    many = interval(Sample(values, [i // 20 for i in range(80)]))
    assert many[1] - many[0] > one[1] - one[0] + 0.2


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = interval(Sample(list((rng.random(30) < 0.3).astype(float)), [0] * 30))
        held += low <= 0.3 <= high
    assert 0.9 <= held / 200 <= 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (("a.json", {"study": "other", "answers": []}), "of study other"),
        (answered("x", 1, 0, 5), "with 5 to q2"),
        (answered("x", True), "with True to q0"),
        (("a.json", {"study": "s", "answers": [{"id": "q9", "answer": 1}]}), "'q9'"),
        (("a.json", {"study": "s"}), "without answers"),
        (("a.json", {"study": "s", "answers": [{"id": [], "answer": 1}]}), r"\[\]"),
    ],
)
def test_answers_that_do_not_fit_are_named(file: tuple[str, dict], text: str) -> None:
    with pytest.raises(InputError, match=text):
        scores_of(KEY, [file])
    with pytest.raises(InputError, match="each participant once"):
        scores_of(KEY, [answered("x", 1), answered("x", 0)])
    with pytest.raises(InputError, match="KEY: found a file without questions"):
        scores_of(file[1] | {"study": "s"}, [file])


def test_questions_are_balanced_and_repeat_with_the_seed(results_folder: Path) -> None:
    results = read([results_folder])
    asked = questions_for(results, ("real", "prefer", "caption"), list(VARIANTS), 30, 2, seed=3)
    assert asked == questions_for(results, ("real", "prefer", "caption"), list(VARIANTS), 30, 2, seed=3)
    assert asked != questions_for(results, ("real", "prefer", "caption"), list(VARIANTS), 30, 2, seed=4)
    by_task = Counter(one.task for one in asked)
    assert by_task == {"real": 32, "prefer": 30, "caption": 30}
    assert [one.practice for one in asked[:3]] == [True, True, False]
    shown = Counter(name for one in asked if one.task == "prefer" for name in one.names)
    assert set(shown.values()) == {20}
    left = Counter(one.names.index("real") for one in asked if one.task == "real")
    assert 8 < left[0] < 24
    captions = Counter(one.names[0] for one in asked if one.task == "caption")
    assert set(captions) == {*VARIANTS, "(exact answer)", "(input unchanged)"}
    assert set(captions.values()) == {6}


def test_a_study_needs_the_results_pictures(results_folder: Path, tmp_path: Path) -> None:
    for name in ("run.json", "results.jsonl"):
        shutil.copy(results_folder / name, tmp_path)
    with pytest.raises(InputError, match="without their pictures"):
        questions_for(read([tmp_path]), ("caption",), None, 6, 1, seed=0)
    labels = ["freecontrol", f"freecontrol ({tmp_path.name})"]
    with pytest.raises(InputError, match="--methods"):
        questions_for(read([results_folder, tmp_path]), ("prefer",), labels, 6, 1, seed=0)


def test_page_tells_nothing_of_the_methods(results_folder: Path) -> None:
    asked = questions_for(read([results_folder]), ("real", "prefer", "caption"), None, 6, 1, seed=0)
    text, key = page(asked, "a </script> title", 0.5, 0)
    for word in ("sdedit", "freecontrol", "exact answer", "object-00", str(results_folder)):
        assert word not in text
    assert text.count("</script>") == 2
    assert len(key["questions"]) == 19


def test_wrong_options_are_named(results_folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    for arguments, text in (
        (["--tasks", "taste"], "--tasks"),
        (["--methods", "nobody"], "--methods"),
        (["--methods", "freecontrol", "--tasks", "prefer"], "two or more"),
    ):
        result = run.invoke(app, ["make", str(results_folder), "--out", str(tmp_path / "s.html"), *arguments])
        assert isinstance(result.exception, InputError)
        assert text in str(result.exception)
        assert not (tmp_path / "s.html").exists()


ANSWER = """(async () => {
  while (!document.getElementById("answers")) {
    const words = document.querySelector("#stage p").textContent;
    const image = document.querySelector("#stage .pair img, #stage .single img");
    if (image) await image.decode();
    const buttons = [...document.querySelectorAll("#stage button")];
    if (!buttons.length) throw new Error("no buttons: " + words);
    buttons[0].click();
  }
  return document.getElementById("answers").value;
})()"""


@needs_chromium
def test_a_participant_in_a_real_browser(results_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.html"
    arguments = ["make", str(results_folder), "--out", str(file), "--questions", "5", "--seconds", "0.1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with browser(tmp_path / "profile") as tab:
        tab.open(file, 400)
        tab.run("document.querySelector('#stage button').click()")
        tab.wait("[...document.images].length === 2 && [...document.images].every(i => i.complete)")
        assert layout_faults(tab) == []
        tab.wait("!!document.querySelector('.covered')")
        assert tab.run("getComputedStyle(document.images[0]).visibility") == "hidden"
        tab.run("document.querySelector('#stage button').click()")
        assert "is real" in tab.run("document.querySelector('#stage p').textContent")
        tab.open(file, 1280)  # opened again: what was answered is not asked twice
        assert tab.run("document.getElementById('count').textContent").startswith("1 of 17")
        answers = json.loads(tab.run(ANSWER))
        assert tab.errors == []
    key = json.loads(file.with_suffix(".key.json").read_text())
    assert [one["id"] for one in answers["answers"]] == list(key["questions"])
    given = tmp_path / "answers.json"
    given.write_text(json.dumps(answers))
    result = CliRunner().invoke(app, ["score", str(file.with_suffix(".key.json")), str(given)])
    assert result.exit_code == 0
    found = scores_of(key, [("answers.json", answers)])
    # always the first button: the left picture, or yes
    taken = [q["names"][0] != "real" for q in key["questions"].values() if q["task"] == "real" and not q["practice"]]
    rows = found["tasks"]["real"].values()
    assert math.isclose(sum(row["mean"] * row["answers"] for row in rows), sum(taken))
    assert all(row["mean"] == 1 for row in found["tasks"]["caption"].values())
