"""Several worker processes, some of which die."""

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from eval.results.store import Store
from eval.run import execute
from eval.run.plan import Plan
from freectl.errors import FreectlError, InputError

TASKS = [(f"case-{index}", "sdedit") for index in range(6)]
PLAN = Plan(("mini", None, None), ())


def mortal(connection: Connection, _plan: Plan, folder: Path) -> None:
    """A worker; the first of several dies after its first answer."""
    try:
        (folder / "dead").touch(exist_ok=False)
        first = True
    except FileExistsError:
        first = False
    while True:
        try:
            case, variant = connection.recv()
            connection.send({"case": case, "variant": variant, "by": os.getpid() if first else None})
        except (EOFError, OSError):
            return
        if first:
            os._exit(1)


def hopeless(connection: Connection, _plan: Plan, _folder: Path) -> None:
    """A worker that dies of its first task."""
    connection.recv()
    os._exit(1)


def gone(pid: int) -> bool:
    """Whether that worker has ended."""
    return pid not in [process.pid for process in multiprocessing.active_children()]


def test_a_worker_that_died_since_its_answer_costs_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_work", mortal)
    lines = []
    for line in execute._shared(PLAN, Store(tmp_path), TASKS, 2):
        lines.append(line)
        limit = time.monotonic() + 30
        while line["by"] is not None and not gone(line["by"]):  # so that the next task is sent to a closed pipe
            assert time.monotonic() < limit
            time.sleep(0.01)
    assert sorted((line["case"], line["variant"]) for line in lines) == TASKS
    assert sum(line["by"] is not None for line in lines) == 1
    assert not any("failed" in line for line in lines)


def test_workers_that_die_of_their_tasks_fail_those_alone_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_work", hopeless)
    found: list[dict[str, str]] = []
    with pytest.raises(FreectlError, match="4 cases are left"):
        found.extend(execute._shared(PLAN, Store(tmp_path), TASKS, 2))
    assert [line["failed"] for line in found] == ["the worker process died"] * 2


def hindered(connection: Connection, _plan: Plan, _folder: Path) -> None:
    """A worker that cannot load its model."""
    connection.recv()
    connection.send(InputError("--model", "nothing", "a model"))


def test_an_error_that_no_case_would_survive_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_work", hindered)
    with pytest.raises(InputError, match="--model: found nothing"):
        list(execute._shared(PLAN, Store(tmp_path), TASKS, 2))
