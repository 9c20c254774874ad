"""A batch that is killed at any moment: started again, it loses no row, doubles none, and leaves no half picture."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from batch_kit import files, lines, pixels
from PIL import Image

import freectl
from freectl.files import atomic, journal
from freectl.tasks import edit as editing

COUNT = 4
JOURNAL = "results.jsonl"


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Every result of an undisturbed batch, by name; the model stays loaded for the processes that are killed."""
    folder = tmp_path_factory.mktemp("whole")
    small = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(small).save(folder / "k.png")
    begun = time.perf_counter()
    run(folder, model, folder / "whole")
    taken = time.perf_counter() - begun
    return (
        folder,
        {name: pixels(folder / "whole" / name) for name in files(folder / "whole") if name != JOURNAL},
        taken,
    )


JOURNAL = "results.jsonl"


def run(folder, model, out, **options):
    rows = [{"image": str(folder / "k.png"), "seed": list(range(COUNT))}]
    usual = {"prompt": "a cat", "method": "sdedit", "steps": 2, "model": model, "batch_size": 2, "cache": False}
    return freectl.batch(rows, out, **(usual | options))


def forked(work):
    """Run `work` in a process of its own; its id. It shares the loaded model and ends without Python's own clean-up."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return pid


def check(out, results, complete):
    """Nothing half, nothing double; and if it is complete, everything, as an undisturbed batch has it."""
    names = files(out) - {JOURNAL}
    if complete:
        assert names == set(results)
        assert sorted(line["output"] for line in lines(out)) == sorted(results)
        assert all("error" not in line for line in lines(out))
    for name in names - {one for one in names if one.startswith(".freectl-")}:
        assert np.array_equal(pixels(Path(out) / name), results[name]), name


def killed_at(moment, whole, model, out):
    """Start a batch, kill it after so many seconds, look at what it left, start it again; how many were there."""
    folder, results, _ = whole
    pid = forked(lambda: run(folder, model, out, resume=True))
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    there = {}
    if Path(out).exists():
        check(out, results, complete=False)
        there = {name: os.stat(Path(out) / name).st_mtime_ns for name in files(out) if name in results}
    done = run(folder, model, out, resume=True)
    assert (done.kept, done.made) == (len(there), COUNT - len(there))
    check(out, results, complete=True)
    for name, when in there.items():
        assert os.stat(Path(out) / name).st_mtime_ns == when  # not done again
    return len(there)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_kill_9_in_the_middle(whole, model, tmp_path):
    killed_at(0.6 * whole[2], whole, model, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_kill_9_at_twenty_random_moments(whole, model, tmp_path):
    chance = random.Random(0)
    left = [killed_at(chance.random() * whole[2], whole, model, tmp_path / str(index)) for index in range(20)]
    print(f"results there when killed, of {COUNT}: {left}")  # noqa: T201 - told with -s
    assert len(set(left)) > 1  # the moments were not all before the first one or after the last


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


POINTS = [
    (editing, "run_together", "before the network"),
    (os, "replace", "between a picture's last byte and its name"),
    (journal, "append", "between a picture and its line"),
    (os, "fsync", "while bytes are on their way"),
    (atomic, "sweep", "before a file is begun"),
]


@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize(("place", "name", "what"), POINTS, ids=[what for *_, what in POINTS])
def test_a_fault_at_any_point(whole, model, tmp_path, monkeypatch, place, name, what, when):
    folder, results, _ = whole
    calls, real = [], getattr(place, name)

    def faulty(*args, **kwargs):
        calls.append(1)
        if len(calls) == when + 1:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(place, name, faulty)
        run(folder, model, tmp_path / "out")
    if (tmp_path / "out").exists():
        check(tmp_path / "out", results, complete=False)
    run(folder, model, tmp_path / "out", resume=True)
    check(tmp_path / "out", results, complete=True)


def test_a_picture_without_its_line_is_not_made_again(whole, model, tmp_path, monkeypatch):
    folder, _, _ = whole
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(journal, "append", lambda *_: (_ for _ in ()).throw(Killed()))
        run(folder, model, tmp_path / "out")
    assert not (tmp_path / "out" / JOURNAL).exists()
    done = run(folder, model, tmp_path / "out", resume=True)
    assert done.kept == 2
    assert done.kept + done.made == COUNT
