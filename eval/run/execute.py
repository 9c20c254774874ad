"""Carries out a plan's tasks, in this process or in several, and writes every result as it comes."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eval.bench.cases import Bench, Case
from eval.results.store import Store
from eval.run.plan import Plan, Task
from eval.run.workshop import Workshop
from freectl.files.record import dumps
from freectl.tasks.batch import engines
from freectl.tasks.batch.pool import Died


def execute(
    plan: Plan,
    bench: Bench,
    cases: Sequence[Case],
    store: Store,
    workers: int = 1,
    *,
    engine: str = "local",
    ray_address: str | None = None,
    scorer: Any = None,
) -> int:
    """Do what is not done yet; returns how many cases failed (they are in failures.jsonl, and are not done).

    Args:
        store: locked. workers: processes or actors, each with the model. engine: see `freectl.tasks.batch.engines`.
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
        alone = workers == 1 and engine == "local"
        make = partial(_own_shop, plan, store, bench, scorer) if alone else partial(_shop, plan, store.folder)
        for task, answer in engines.engine(engine, workers, ray_address)(make, tasks):
            line = died(task) if isinstance(answer, Died) else answer
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


def _shop(plan: Plan, folder: Path) -> Any:
    """What a worker process does tasks with."""
    import torch

    torch.set_num_threads(plan.threads)
    return Workshop(plan, Store(folder)).do


def _own_shop(plan: Plan, store: Store, bench: Bench, scorer: Any) -> Any:
    import torch

    torch.set_num_threads(plan.threads)
    return Workshop(plan, store, bench, scorer).do


def died(task: Task) -> dict[str, Any]:
    """What is told of a task whose worker ended."""
    return {"case": task[0], "variant": task[1], "failed": "the worker process died"}
