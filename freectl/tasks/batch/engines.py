"""Where workers run: processes of this machine, or actors of a Ray cluster. No scheduler of our own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from freectl.errors import InputError
from freectl.tasks.batch.pool import answers

ENGINES = ("local", "ray")
Engine = Callable[..., Iterator[tuple[Any, Any]]]
"""(make, items) to each item with a worker's answer, or `Died`, as they come."""


def engine(name: str = "local", workers: int = 1, address: str | None = None) -> Engine:
    """An engine with so many workers.

    Args:
        address: of a Ray cluster; None = this machine.

    Raises:
        InputError: an unknown name, Ray is not installed, or an address for another engine.
    """
    if name not in ENGINES:
        raise InputError("--engine", repr(name), ", ".join(ENGINES))
    if name == "local":
        if address:
            raise InputError("--ray-address", repr(address), "with --engine ray")
        return partial(answers, workers=workers)
    from freectl.tasks.batch import on_ray

    on_ray.check_installed()
    return partial(on_ray.answers_of_actors, workers=workers, address=address)
