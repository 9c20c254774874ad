"""Several worker processes, some of which die."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from freectl.errors import FreectlError, InputError
from freectl.tasks.batch.pool import Died, answers

ITEMS = list(range(6))


def mortal(folder: Path):
    """A worker; the first of several dies soon after its first answer."""
    try:
        (folder / "dead").touch(exist_ok=False)
        first = True
    except FileExistsError:
        first = False

    def answer(item):
        if first:
            threading.Timer(0.05, os._exit, [1]).start()
        return {"item": item, "by": os.getpid() if first else None}

    return answer


def hopeless():
    """A worker that dies of its first item."""
    return lambda _: os._exit(1)


def hindered():
    """A worker that cannot load its model."""
    raise InputError("--model", "nothing", "a model")


def slow():
    """A worker with which a run is never done."""

    def answer(item):
        time.sleep(0.05)
        return item

    return answer


def gone(pid):
    """Whether that worker has ended."""
    return pid not in [process.pid for process in multiprocessing.active_children()]


def test_a_worker_that_died_since_its_answer_costs_no_item(tmp_path):
    found = []
    for item, answer in answers(partial(mortal, tmp_path), ITEMS, 2):
        found.append((item, answer))
        limit = time.monotonic() + 60
        by = answer["by"]
        while by is not None and not gone(by):  # so that the next item is sent to a closed pipe
            assert time.monotonic() < limit
            time.sleep(0.01)
    assert sorted(item for item, _ in found) == ITEMS
    assert all(answer["item"] == item for item, answer in found)
    assert sum(answer["by"] is not None for _, answer in found) == 1


def test_workers_that_die_of_their_items_fail_those_alone_and_the_rest_is_told():
    found = []
    with pytest.raises(FreectlError, match="4 items are left"):
        found.extend(answers(hopeless, ITEMS, 2))
    assert [type(answer) for _, answer in found] == [Died] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_no_item_would_survive_ends_the_run(workers):
    with pytest.raises(InputError, match="--model: found nothing"):
        list(answers(hindered, ITEMS, workers))
    assert list(answers(hindered, [], workers)) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_workers_of_a_killed_run_end_with_it():
    code = (
        "from test_pool import slow; from freectl.tasks.batch.pool import answers\n"
        "if __name__ == '__main__':\n"
        "    for item, _ in answers(slow, range(10**6), 2): print(item, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    run.wait()
    assert len(children) >= 2
    limit = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < limit, "somebody is left who would go on"
        time.sleep(0.01)
