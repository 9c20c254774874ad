"""Files go over no input of the run, and silently over no result of other settings."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files.atomic import STALE_SECONDS, atomic_write
from freectl.files.outputs import Outputs, digest
from freectl.files.record import read_record

RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


def record(**changes):
    return {
        "prompt": "a cat",
        "seed": 0,
        "settings": {"strength": 0.5},
        "cost": {"seconds": 1.0},
        "warnings": [],
    } | changes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["o.png", "o.jpg", "o.webp"])
def test_the_same_settings_replace_and_others_are_numbered(here, name):
    target = here / name
    first = Outputs().save(RED, target, record())
    again = Outputs()
    assert again.save(RED, target, record(cost={"seconds": 9.0}, warnings=["slow"])) == first == target
    assert again.take_notes() == []
    other = Outputs()
    numbered = other.save(BLUE, target, record(seed=1))
    assert numbered.name == name.replace("o", "o_2")
    assert "--overwrite" in other.take_notes()[0]
    assert other.take_notes() == []
    assert read_record(target)["seed"] == 0
    assert (read_record(numbered)["seed"], read_record(numbered)["output"]) == (1, str(numbered))
    assert Outputs().save(BLUE, target, record(seed=2)).name == name.replace("o", "o_3")
    assert Outputs().save(BLUE, target, record(seed=1)) == numbered  # its own earlier number
    assert Outputs(overwrite=True).save(BLUE, target, record(seed=3)) == target
    assert read_record(target)["seed"] == 3


def test_a_file_that_freectl_did_not_write_is_left(here):
    BLUE.save("o.png")
    (here / "p.jpg.json").write_text("mine")
    assert Outputs().save(RED, here / "o.png", record()).name == "o_2.png"
    assert Outputs().save(RED, here / "p.jpg", record()).name == "p_2.jpg"
    assert (here / "p.jpg.json").read_text() == "mine"


def test_pictures_without_a_record_are_told_apart_by_their_pixels(here):
    assert Outputs().save(RED, here / "o.png") == Outputs().save(RED, here / "o.png") == here / "o.png"
    assert Outputs().save(BLUE, here / "o.png").name == "o_2.png"


def test_no_input_is_overwritten_not_even_when_asked_to_or_by_another_name(here):
    for name in ("in.png", "o_2.png"):
        BLUE.save(name)
    before = (here / "in.png").read_bytes()
    os.symlink("in.png", "link.png")
    os.link("in.png", "hard.png")
    outputs = Outputs([("--image", "in.png"), ("--mask", "o_2.png")], overwrite=True)
    for name in ("in.png", "link.png", "hard.png", "./in.png"):
        with pytest.raises(InputError, match="the file of --image itself"):
            outputs.check(here / name)
        with pytest.raises(InputError, match="the file of --image itself"):
            outputs.save(RED, here / name, record())
    assert (here / "in.png").read_bytes() == before
    Outputs().save(RED, here / "o.png", record())
    numbered = Outputs([("--mask", "o_2.png")]).save(BLUE, here / "o.png", record(seed=1))
    assert numbered.name == "o_3.png"  # o_2.png is the mask


def test_the_record_beside_a_jpeg_may_be_an_input_too(here):
    Outputs().save(RED, here / "o.jpg", record())
    with pytest.raises(InputError, match="the file of --config itself"):
        Outputs([("--config", "o.jpg.json")]).check(here / "o.jpg")


def test_other_files_are_kept_when_their_bytes_are_the_same(here):
    target = here / "b.safetensors"
    outputs = Outputs()
    assert outputs.write(target, lambda path: path.write_bytes(b"one")) == target
    assert outputs.write(target, lambda path: path.write_bytes(b"one")) == target
    assert outputs.write(target, lambda path: path.write_bytes(b"two")).name == "b_2.safetensors"
    assert target.read_bytes() == b"one"
    with pytest.raises(InputError, match="the file of NAME itself"):
        Outputs([("NAME", target)]).check_file(target, ".safetensors", "a file")

    def full(path):
        path.write_bytes(b"hal")
        raise OSError(28, "No space left on device")

    with pytest.raises(FreectlError, match="No space left"):
        outputs.write(here / "c.safetensors", full)
    assert sorted(path.name for path in here.iterdir()) == ["b.safetensors", "b_2.safetensors"]


def test_the_digest_of_a_run_changes_with_what_was_asked_alone():
    assert digest(record()) == digest(record(output="x.png", cost={}, warnings=["w"]))
    assert len({digest(record()), digest(record(seed=1)), digest(record(), RED), digest(record(), BLUE)}) == 4


def test_names_that_no_file_system_holds_are_refused_before_a_run(here):
    with pytest.raises(InputError, match="more than 240 bytes"):
        Outputs().check("x" * 250 + ".png")
    with pytest.raises(InputError, match="no folder"):
        Outputs().check("x" * 300 + "/o.png")


def test_what_killed_processes_left_is_swept(here):
    old, new, other = (here / name for name in (f".freectl-{'a' * 16}.tmp", f".freectl-{'b' * 16}.tmp", ".mine-0.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - STALE_SECONDS - 9,) * 2)
    with atomic_write(here / "o.bin") as stream:
        stream.write(b"whole")
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


def _save_one(start, index):
    start.wait()
    Outputs().save(RED, Path("o.png"), record(seed=index))


def _write_one(start, index):
    start.wait()
    Outputs().write(Path("o.json"), lambda made: made.write_text(str(index)))


@pytest.mark.parametrize("kind", ["processes", "threads"])
@pytest.mark.parametrize(("work", "suffix"), [(_save_one, "png"), (_write_one, "json")])
def test_no_result_of_runs_at_once_is_lost(here, monkeypatch, kind, work, suffix):
    """Between choosing a name and taking it each would meet the others."""
    chosen = Outputs._free

    def slow(*args):
        target = chosen(*args)
        time.sleep(0.05)
        return target

    monkeypatch.setattr(Outputs, "_free", slow)
    context = multiprocessing.get_context("fork") if kind == "processes" else threading
    start = context.Barrier(4)
    make = context.Process if kind == "processes" else context.Thread
    runs = [make(target=work, args=(start, index)) for index in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted([f"o.{suffix}", *(f"o_{number}.{suffix}" for number in (2, 3, 4))])
    held = {read_record(here / name)["seed"] if suffix == "png" else int((here / name).read_text()) for name in names}
    assert held == {0, 1, 2, 3}
