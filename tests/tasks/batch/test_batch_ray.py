"""Batches on Ray actors: what the local engine makes, also when an actor is killed. Takes a minute to start."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from batch_kit import files, lines, pixels

import freectl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def ray_of_this_machine(monkeypatch):
    """Actors import the packages that are tested."""
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")
    monkeypatch.setenv("RAY_worker_niceness", "0")


def test_two_actors_make_what_the_local_engine_makes(batch):
    rows = [{"image": f"{name}.png", "seed": [0, 1]} for name in "abc"]
    assert batch(rows, "local", batch_size=2).made == 6
    done = batch([*rows, {"image": "no.png"}], "ray", batch_size=2, engine="ray", workers=2)
    assert (done.made, done.failed) == (6, 1)
    assert files("ray") == files("local")
    for name in files("local") - {"results.jsonl"}:
        assert np.array_equal(pixels(f"ray/{name}"), pixels(f"local/{name}")), name
    told = {(line["row"], line["seed"], line["output"]) for line in lines("ray") if "error" not in line}
    assert told == {(line["row"], line["seed"], line["output"]) for line in lines("local")}
    assert batch(rows, "ray", resume=True).kept == 6


def doomed_worker(folder, item):
    """The first of all to begin leaves its process id and waits for its end, the others answer at once."""
    try:
        with open(Path(folder, "first"), "x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return [item, os.getpid()]
    time.sleep(1500)
    return [item, None]


@pytest.fixture
def cluster(ray_of_this_machine):
    """Ray with two processors and a small store, started here: what is tested is not how long that takes."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=10**8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def test_an_actor_that_is_killed_costs_no_item(tmp_path, cluster):
    from freectl.tasks.batch.on_ray import answers_of_actors

    killed, over, first = [], threading.Event(), tmp_path / "first"

    def kill():
        while not over.wait(0.2):
            said = first.read_text(encoding="ascii") if first.exists() else ""
            if said.endswith("\n"):
                killed.append(int(said))
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = list(answers_of_actors(partial(partial, doomed_worker, str(tmp_path)), list(range(6)), 2))
    over.set()
    killer.join()
    assert sorted(item for item, _ in found) == list(range(6))
    assert all(answer[0] == item for item, answer in found)
    assert len(killed) == 1
    assert killed[0] not in {answer[1] for _, answer in found}


def test_pictures_and_manifests_elsewhere(batch, model):
    import fsspec

    place = fsspec.filesystem("memory")
    place.pipe("/data/a.png", Path("a.png").read_bytes())
    place.pipe("/data/m.csv", b"image,prompt\na.png,a cat\n")
    assert batch("memory://data/m.csv", "far").made == 1
    single = freectl.edit("a.png", "a cat", "sdedit", model, steps=3)
    assert np.array_equal(pixels("far/a_0.png"), np.asarray(single.image))
    assert lines("far")[0]["settings"]["image"] == "memory://data/a.png"
