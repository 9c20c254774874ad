"""Where a bundle's results are made: one process, one model at a time, pictures written as they come.

The same class on every engine: in this process, in others of this machine, as an actor of a cluster.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from freectl.errors import FreectlError
from freectl.files import remote
from freectl.files.outputs import Outputs
from freectl.tasks import memory
from freectl.tasks.batch.bundles import MOST, goes_together, shared
from freectl.tasks.batch.journal import Journal, Line, failure, line_of
from freectl.tasks.batch.places import ADAPTERS, PICTURES
from freectl.tasks.batch.rows import Wanted
from freectl.tasks.options import EditOptions, validated
from freectl.tasks.plan import EditResult, Plan

SMALL = 256 * 256
"""Pixels of a picture of which 8 at once fit into any machine's memory."""
SHARE = 0.8
"""Of the free memory that a batch may take by what its first picture took."""


@dataclass(frozen=True)
class Spec:
    """What workers are told once.

    Attributes:
        out: the folder of the batch; all workers reach it by this path.
        batch_size: most pictures at once; None = as free memory allows.
        cache: whether inversions and bases are kept.
        threads: of CPU work; None leaves them.
    """

    out: str
    batch_size: int | None = None
    cache: bool = True
    threads: int | None = None


class Worker:
    """Makes the results of bundles.

    Args:
        spec: as above.
    """

    def __init__(self, spec: Spec) -> None:
        if spec.threads is not None:
            import torch

            torch.set_num_threads(spec.threads)
        self.spec = spec
        self.journal = Journal(Path(spec.out))
        self._limits: dict[Any, int] = {}
        self._broken: dict[Any, FreectlError] = {}

    def __call__(self, bundle: Sequence[dict[str, Any]]) -> list[Line]:
        """The lines of a bundle's results, whose pictures are written; a result that fails has its error.

        Args:
            bundle: `Wanted` as dicts.
        """
        made: list[Line] = []
        groups: dict[Any, list[tuple[Wanted, Plan]]] = {}
        for values in bundle:
            one = Wanted(**values)
            if (line := self.journal.written(one)) is not None:  # by an actor that died after it
                made.append(line)
                continue
            try:
                plan = planned(one)
                groups.setdefault(self._batch_key(one, plan), []).append((one, plan))
            except Exception as error:  # one result's failure must not end a night's run: it is told and tried again
                made.append(_failed(one, error))
        for key, group in groups.items():
            made += self._made(key, group)
        return made

    def _batch_key(self, one: Wanted, plan: Plan) -> Any:
        """Equal for results that one batch can hold."""
        from freectl.models import families
        from freectl.models.sizes import working_size
        from freectl.semantics.store import seed_prompts

        if plan.source is None or not goes_together(one.options):
            return one.identity
        pipe = self._pipeline(plan)
        size = working_size(plan.picture.original_size, pipe)
        if "concept" not in plan.method.inputs or plan.options.concept is not None:
            return shared(one.options, one.settings), size
        # without a concept the prompt may choose the bases, of which a batch has one set
        words = seed_prompts(families.of_pipe(pipe).words, None, plan.options.prompt)
        return shared(one.options, one.settings), size, words.texts

    def _pipeline(self, plan: Plan) -> Any:
        """The model of a plan; one that cannot be loaded is not tried again."""
        from freectl.tasks import edit as editing

        key = editing.shared_by(plan.options)
        if key in self._broken:
            raise self._broken[key]
        try:
            return editing.opened(plan.options, plan.source)[0]  # type: ignore[arg-type]  # plans without one run elsewhere
        except FreectlError as error:
            self._broken[key] = error
            raise

    def _made(self, key: Any, group: list[tuple[Wanted, Plan]]) -> list[Line]:
        made: list[Line] = []
        while group:
            count = min(self._limit(key, group[0][1]), len(group))
            part, group = group[:count], group[count:]
            try:
                results = self._run(key, [plan for _, plan in part])
            except memory.OutOfMemoryError as error:
                memory.emptied()
                if count == 1:
                    made.append(_failed(part[0][0], error))
                    continue
                self._limits[key], group = count // 2, part + group
            except Exception as error:
                if count == 1:
                    made.append(_failed(part[0][0], error))
                    continue
                # one of them is at fault: each alone tells which
                made += [line for one in part for line in self._alone(one)]
            else:
                made += [self._written(one, result) for (one, _), result in zip(part, results, strict=True)]
        return made

    def _alone(self, one: tuple[Wanted, Plan]) -> list[Line]:
        return self._made(one[0].identity, [one])

    def _limit(self, key: Any, plan: Plan) -> int:
        """Most pictures at once: what is asked for, what memory has shown, or one where it has yet to show."""
        if key in self._limits:
            return self._limits[key]
        if self.spec.batch_size is not None:
            return self.spec.batch_size
        small = isinstance(key, tuple) and key[1][0] * key[1][1] <= SMALL
        return MOST if small else 1

    def _run(self, key: Any, plans: list[Plan]) -> list[EditResult]:
        from freectl.tasks import edit as editing

        if len(plans) > 1:
            return editing.run_together(plans, cache=self.spec.cache)
        if not isinstance(key, tuple) or key in self._limits or self.spec.batch_size is not None:
            return [editing.run(plans[0], cache=self.spec.cache)]
        device = editing.machine(plans[0].options)[0]
        with memory.Peak(device) as peak:
            result = editing.run(plans[0], cache=self.spec.cache)
        self._limits[key] = memory.fitting(device, peak.mb, SHARE, MOST)
        return [result]

    def _written(self, one: Wanted, result: EditResult) -> Line:
        try:
            target = self.journal.place(one)
            record = {"output": str(target), **result.record}
            given = {name: value for name, value in one.options.items() if name in record["settings"]}
            record["settings"] = {**record["settings"], **given}  # addresses, not the copies that were read
            outputs = Outputs([("--image", one.image)])
            saved = outputs.save(result.image, target, record, one.identity, "--out")
            record["warnings"] = [*record["warnings"], *outputs.take_notes()]
            return line_of(one, record, os.path.relpath(saved, self.journal.folder))
        except Exception as error:
            return _failed(one, error)


def planned(one: Wanted) -> Plan:
    """The checked plan of a result, its files fetched where they are elsewhere.

    Raises:
        InputError: an input cannot be used.
    """
    from freectl.tasks import edit as editing

    values, image = dict(one.options), one.image
    for name in (*PICTURES[1:], *ADAPTERS):
        values[name] = _here(values[name], f"--{name.replace('_', '-')}")
    plan = editing.plan(_here(image, "--image"), validated(EditOptions, values), one.settings)
    return replace(plan, picture=replace(plan.picture, source=image))


def _here(value: Any, option: str) -> Any:
    if isinstance(value, list | tuple):
        return [_here(one, option) for one in value]
    return str(remote.fetched(value, option)) if isinstance(value, str) and remote.is_remote(value) else value


def _failed(one: Wanted, error: Exception) -> Line:
    said = str(error) if isinstance(error, FreectlError) else f"{type(error).__name__}: {error}"
    about = {name: one.options[name] for name in ("prompt", "seed", "method", "model")}
    return failure(one.row, one.identity, said, image=one.image, **about)


def plain(bundle: Sequence[Wanted]) -> list[dict[str, Any]]:
    """A bundle as engines carry it."""
    return [asdict(one) for one in bundle]
