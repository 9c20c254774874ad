"""Carries out a plan's tasks, in this process or in several, and writes every result as it comes."""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from eval.bench.cases import Bench, Case
from eval.results.store import Store
from eval.run.plan import Plan, Task
from eval.run.workshop import Workshop
from freectl.errors import FreectlError
from freectl.files.record import dumps


def execute(
    plan: Plan, bench: Bench, cases: Sequence[Case], store: Store, workers: int = 1, *, scorer: Any = None
) -> int:
    """Do what is not done yet; returns how many cases failed (they are in failures.jsonl, and are not done).

    Args:
        store: locked. workers: processes, each with the model.
        scorer: for the results, in place of the benchmark's own; one process only.

    Raises:
        FreectlError: all workers died, the model cannot be loaded, or results cannot be written.
    """
    from tqdm import tqdm

    done = store.recover()
    wanted = plan.tasks(cases)
    tasks = [task for task in wanted if task not in done]
    failures = store.folder / "failures.jsonl"
    failures.unlink(missing_ok=True)
    failed = 0
    told: set[str] = set()
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(tasks), unit="edit", smoothing=0.05, dynamic_ncols=True)
    with bar:
        results = _alone(plan, bench, store, tasks, scorer) if workers == 1 else _shared(plan, store, tasks, workers)
        for line in results:
            if "failed" in line:
                failed += 1
                with failures.open("a", encoding="utf-8") as stream:
                    stream.write(dumps(line) + "\n")
                bar.write(f"{line['variant']} {line['case']}: {line['failed']}", file=sys.stderr)
            else:
                for note in set(line["notes"]) - told:
                    bar.write(note, file=sys.stderr)
                    told.add(note)
                store.append(line)
            bar.update()
    return failed


def _alone(plan: Plan, bench: Bench, store: Store, tasks: list[Task], scorer: Any) -> Iterator[dict[str, Any]]:
    if not tasks:
        return
    import torch

    torch.set_num_threads(plan.threads)
    shop = Workshop(plan, store, bench, scorer)
    for task in tasks:
        yield shop.do(task)


def _shared(plan: Plan, store: Store, tasks: list[Task], workers: int) -> Iterator[dict[str, Any]]:
    """Hand out one task at a time; a worker that dies fails its task alone."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    busy: dict[Connection, Task] = {}
    processes = []
    for _ in range(min(workers, len(tasks))):
        mine, its = context.Pipe()
        process = context.Process(target=_work, args=(its, plan, store.folder), daemon=True)
        process.start()
        its.close()  # so that the end of the process is the end of the pipe
        processes.append(process)
        _hand_out(mine, waiting, busy)
    try:
        while busy:
            for connection in cast(list[Connection], wait(list(busy))):
                task = busy.pop(connection)
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    connection.close()
                    yield {"case": task[0], "variant": task[1], "failed": "the worker process died"}
                    continue
                if isinstance(answer, FreectlError):
                    raise answer
                yield answer
                _hand_out(connection, waiting, busy)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if waiting:
        raise FreectlError(f"all worker processes died; {len(waiting)} cases are left: run again, with fewer --workers")


def _hand_out(connection: Connection, waiting: list[Task], busy: dict[Connection, Task]) -> None:
    """Give the worker the next task, or close its pipe; a worker that died since its last answer gets nothing more."""
    if not waiting:
        connection.close()
        return
    try:
        connection.send(waiting[-1])
    except OSError:
        connection.close()
    else:
        busy[connection] = waiting.pop()


def _work(connection: Connection, plan: Plan, folder: Path) -> None:
    """A worker: tasks in, lines or the error that ends the run out, until the other end of the pipe is gone."""
    import torch

    torch.set_num_threads(plan.threads)
    shop = Workshop(plan, Store(folder))
    while True:
        try:
            task = connection.recv()
            try:
                answer: dict[str, Any] | FreectlError = shop.do(task)
            except FreectlError as error:
                answer = error
            connection.send(answer)
        except (EOFError, OSError, KeyboardInterrupt):
            return
