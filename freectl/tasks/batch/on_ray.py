"""Items handed to workers that are Ray actors, of this machine or a cluster: `map_batches` of Ray Data does it all.

An actor that dies is started again by Ray, and what it had been given is given out again. Items and answers travel as
JSON texts.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.tasks.batch.pool import Make

MOST_BLOCKS = 10_000
"""Pieces in which Ray Data keeps the items; answers come piece by piece."""
TRIES = 3
"""To start Ray on this machine."""
FATAL = "fatal"


def check_installed() -> None:
    """Raises InputError: Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        found = f"ray, which cannot be imported ({error})"
        raise InputError("--engine", found, "local, or pip install 'freectl[ray]'") from error


def answers_of_actors(
    make: Make, items: Sequence[Any], workers: int = 1, address: str | None = None
) -> Iterator[tuple[Any, Any]]:
    """Each item with a worker's answer to it, as they come.

    Args:
        make: makes a worker, once an actor. items: plain JSON, as the answers are.
        workers: actors. Each has a GPU of its own where the cluster has any.
        address: of a cluster, "auto" for the one this machine belongs to; None starts one of this machine.

    Raises:
        InputError: no cluster there.
        FreectlError: what a worker raised, which ends the run; or Ray gave up.
    """
    import ray
    import ray.data

    if not items:
        return
    started = not ray.is_initialized()
    if started:
        _begin(ray, address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [{"index": index, "item": json.dumps(item)} for index, item in enumerate(items)]
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
            Actor,
            fn_constructor_args=(make, os.getcwd()),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            **_share(ray.cluster_resources(), workers),
        )
        for row in data.iter_rows():
            answer = json.loads(str(row["answer"]))
            if isinstance(answer, dict) and FATAL in answer:
                raise _error(answer)
            yield items[int(row["index"])], answer
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise FreectlError(f"--engine ray: {first[0]}") from error
    finally:
        if started:
            ray.shutdown()


def _begin(ray: Any, address: str | None) -> None:
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # whatever connecting leads to
            allowed = "the address of a running cluster"
            raise InputError("--ray-address", f"'{address}' ({error})", allowed) from error
        return
    for last in [*[False] * (TRIES - 1), True]:
        try:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # on a busy machine its parts miss each other's deadlines
            ray.shutdown()
            if last:
                raise FreectlError(f"--engine ray: it could not be started here ({error})") from error
        else:
            return


def _share(resources: dict[str, float], workers: int) -> dict[str, Any]:
    """What an actor holds: a GPU where there are any; else so much CPU that some is left for Ray itself."""
    if resources.get("GPU", 0) >= 1:
        return {"num_gpus": 1}
    return {"num_cpus": min(1.0, resources.get("CPU", 1.0) / (workers + 1))}


class Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, make: Make, folder: str) -> None:
        with suppress(OSError):  # paths of rows may be relative to where the batch was started
            os.chdir(folder)
        self._fatal: dict[str, Any] | None = None
        try:
            self._worker: Callable[[Any], Any] = make()
        except FreectlError as error:
            self._fatal = _plain(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answers to a batch of one item, under the item's index."""
        return {"index": batch["index"], "answer": [json.dumps(self._answer(str(item))) for item in batch["item"]]}

    def _answer(self, item: str) -> Any:
        if self._fatal is not None:
            return self._fatal
        try:
            return self._worker(json.loads(item))
        except FreectlError as error:
            return _plain(error)


def _plain(error: FreectlError) -> dict[str, Any]:
    said = [error.option, error.found, error.allowed] if isinstance(error, InputError) else [str(error)]
    return {FATAL: said}


def _error(answer: dict[str, Any]) -> FreectlError:
    said = answer[FATAL]
    return InputError(*said) if len(said) == 3 else FreectlError(*said)
