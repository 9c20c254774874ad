"""The tour in a shortened form, and its judgement against answers that are right and wrong by construction."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from freectl.cli import app
from freectl.denoising import cost as counted
from freectl.errors import InputError
from freectl.files.record import read_record
from freectl.mini.scene import render
from freectl.tasks import tour
from freectl.tasks.tour import KINDS, cases, judged


def test_it_runs_and_its_page_has_everything_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "KINDS", KINDS[1:3])
    monkeypatch.setattr(tour, "METHODS", ("pnp", "sdedit"))
    monkeypatch.setattr(counted, "truncated_share", lambda *_: 0.5)  # seconds, once a process
    done = CliRunner().invoke(app, ["tour", "--out", str(tmp_path / "shown"), "--steps", "2", "--format", "json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert [one["title"] for one in told["stops"]] == ["Edit", "Keep", "Control", "Compare", "Evaluate"]
    page = Path(told["output"]).read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == page.count("<img ") == len(told["stops"]) + 1  # the edit's inside too
    assert all(min(Image.open(BytesIO(base64.b64decode(one))).size) > 100 for one in images)
    assert "http" not in page
    assert page.count("<tr>") == 1 + 2
    for name in ("cat.png", "tiger.png", "controlled.png", "noto_pnp.png", "case2_edited.png"):
        assert read_record(tmp_path / "shown" / name)["steps"] == 2
    kept = [Image.open(tmp_path / "shown" / name) for name in ("fox.png", "tiger.png", "background.png")]
    pixels = zip(*(one.convert("RGB").getdata() for one in kept), strict=True)
    assert all(before == after for before, after, mask in pixels if mask == (255, 255, 255))


def test_exact_answers_are_reached_and_untouched_inputs_are_not() -> None:
    asked = list(cases())
    assert [one.changed for one in asked] == list(KINDS)
    assert {row[2] for row in judged(asked, [render(one.after) for one in asked])} == {"yes"}
    assert all(float(row[4]) > 0.85 for row in judged(asked, [render(one.after) for one in asked]))
    untouched = judged(asked, [render(one.before) for one in asked])
    assert {row[2] for row in untouched} == {"no"}
    for case, row in zip(asked, untouched, strict=True):
        assert {part.split()[0] for part in row[3].split(", ")} == set(case.changed)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(app, ["tour", "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "a new or empty folder" in str(done.exception)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
