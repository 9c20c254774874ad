"""`freectl batch` on the command line."""

import json
from pathlib import Path

import pytest
from commands import files

USUAL = ("--method", "sdedit", "--steps", "3")


@pytest.fixture
def photos(source):
    folder = Path("photos")
    folder.mkdir()
    for name in "ab":
        source.save(folder / f"{name}.png")
    return folder


def test_a_folder_a_sentence_and_on_from_there(cli, model, photos):
    usual = ("batch", "--folder", photos, "--prompt", "a cat", "--model", model, *USUAL, "--out", "out")
    plan = cli(*usual, "--dry-run", "--seeds", "2", "--format", "json").json
    assert (plan["results"], plan["failed"]) == (4, 0)
    assert plan["row_forwards"] > 0
    assert not Path("out").exists()
    ran = cli(*usual, "--seeds", "2", "--format", "json")
    assert (ran.json["made"], ran.json["failed"]) == (4, 0)
    assert files(Path("out")) - {".lock"} == {"a_0.png", "a_1.png", "b_0.png", "b_1.png", "results.jsonl"}
    again = cli(*usual)
    assert again.code == 2
    assert "--resume" in again.error
    more = cli(*usual, "--seed", "0,1,7", "--resume", "--format", "json").json
    assert (more["made"], more["kept"]) == (2, 4)
    assert "a minute" in cli(*usual, "--seed", "8", "--resume").out


def test_failures_are_told_counted_and_exit_1(cli, model, photos):
    (photos / "a.png").write_bytes(b"none")
    rows = [{"image": "photos/a.png"}, {"image": "photos/b.png"}, {"image": "photos/b.png", "steps": 0}]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = ("batch", "--manifest", "m.jsonl", "--prompt", "a cat", "--model", model, *USUAL)
    dry = cli(*usual, "--out", "out", "--dry-run")
    assert (dry.code, Path("out").exists()) == (2, False)
    assert "row 1" in dry.err
    ran = cli(*usual, "--out", "out")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "freectl: 2 of 3 failed, see out/results.jsonl"
    assert "row 3 failed: --steps" in ran.err
    stopped = cli(*usual, "--out", "other", "--on-error", "stop")
    assert (stopped.code, Path("other").exists()) == (2, False)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "--manifest"),
        (("--folder", "photos", "--manifest", "m.csv"), "--manifest"),
        (("--folder", "none"), "--folder"),
        (("--folder", "photos", "--out", "photos"), "--out"),
        (("--folder", "photos", "--out", "in.png"), "--out"),
        (("--folder", "photos", "--name", "../{stem}.png"), "--name"),
        (("--folder", "photos", "--batch-size", "0"), "--batch-size"),
        (("--folder", "photos", "--engine", "cloud"), "--engine"),
        (("--folder", "photos", "--on-error", "panic"), "--on-error"),
        (("--folder", "photos", "--ray-address", "auto"), "--ray-address"),
        (("--folder", "photos", "--seed", "1,1"), "--seed"),
        (("--folder", "photos", "--set", "nothing=1"), "nothing"),
        (("--folder", "photos", "--model", "none"), "--model"),
        (("--manifest", "none.csv"), "none.csv"),
        (("--manifest", "in.png"), ".jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli, photos, args, named):
    out = () if "--out" in args else ("--out", "out")
    ran = cli("batch", "--prompt", "a cat", "--method", "sdedit", *out, *args)
    assert ran.code == 2
    assert named in ran.error
    assert not Path("out").exists()
    assert files(photos) == {"a.png", "b.png"}
