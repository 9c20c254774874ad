"""Items handed to workers one at a time, in this process or in several of this machine; a dead one fails one item."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from freectl.errors import FreectlError

T = TypeVar("T")
Make = Callable[[], Callable[[Any], Any]]
"""Makes a worker: what answers items. It is called in the worker's process, once."""


class Died:
    """The answer in place of a worker's that died."""


def answers(make: Make, items: Sequence[T], workers: int = 1) -> Iterator[tuple[T, Any]]:
    """Each item with a worker's answer to it, as they come; `Died` where its process has ended.

    Args:
        make: can be sent to another process if there is more than one worker.

    Raises:
        FreectlError: all worker processes died; or what a worker raised, which ends the run.
    """
    if workers == 1:
        worker = make() if items else None
        for item in items:
            yield item, worker(item)  # type: ignore[misc]
        return
    yield from _shared(make, items, workers)


def _shared(make: Make, items: Sequence[T], workers: int) -> Iterator[tuple[T, Any]]:
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(items))
    busy: dict[Connection, T] = {}
    processes = []
    for _ in range(min(workers, len(items))):
        mine, its = context.Pipe()
        process = context.Process(target=_work, args=(its, make), daemon=True)
        process.start()
        its.close()  # so that the end of the process is the end of the pipe
        processes.append(process)
        _hand_out(mine, waiting, busy)
    try:
        while busy:
            for connection in cast(list[Connection], wait(list(busy))):
                item = busy.pop(connection)
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    connection.close()
                    yield item, Died()
                    continue
                if isinstance(answer, FreectlError):
                    raise answer
                yield item, answer
                _hand_out(connection, waiting, busy)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if waiting:
        raise FreectlError(f"all worker processes died; {len(waiting)} items are left: run again, with fewer --workers")


def _hand_out(connection: Connection, waiting: list[T], busy: dict[Connection, T]) -> None:
    """Give the worker the next item, or close its pipe; a worker that died since its last answer gets nothing more."""
    if not waiting:
        connection.close()
        return
    try:
        connection.send(waiting[-1])
    except OSError:
        connection.close()
    else:
        busy[connection] = waiting.pop()


def _work(connection: Connection, make: Make) -> None:
    """A worker: items in, answers or the error that ends the run out, until the other end of the pipe is gone."""
    try:
        worker = make()
    except FreectlError as error:
        worker = _raising(error)
    while True:
        try:
            item = connection.recv()
            try:
                answer = worker(item)
            except FreectlError as error:
                answer = error
            connection.send(answer)
        except (EOFError, OSError, KeyboardInterrupt):
            return


def _raising(error: FreectlError) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise error

    return answer
