"""`freectl.batch`: rows to pictures and one JSON line each; behind the command line and Python callers."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Unpack

from freectl.errors import FreectlError, InputError, python_errors
from freectl.files.outputs import digest
from freectl.tasks.batch import engines, names
from freectl.tasks.batch.bundles import MOST, bundles
from freectl.tasks.batch.journal import Journal, Line, failure
from freectl.tasks.batch.manifest import read_manifest
from freectl.tasks.batch.places import Places
from freectl.tasks.batch.pool import Died
from freectl.tasks.batch.rows import Rows, Wanted
from freectl.tasks.batch.worker import Spec, Worker, plain
from freectl.tasks.compare import CompareOptions

LARGEST, MOST_WORKERS = 64, 4096


@dataclass(frozen=True)
class Way:
    """How a batch is carried out.

    Attributes:
        resume: go on with what the folder holds. workers: processes, or actors, each with the model.
        batch_size: pictures in one batch of the network, None = as free memory allows.
        on_error: whether one failure ends the batch. ray_address: of a cluster; None = this machine.
    """

    resume: bool = False
    workers: int = 1
    batch_size: int | None = None
    on_error: Literal["continue", "stop"] = "continue"
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    cache: bool = True
    progress: bool = False


@dataclass(frozen=True)
class BatchResult:
    """What a batch has done.

    Attributes:
        folder: of the results; results.jsonl in it has one line for each.
        made, kept, failed: results made now, there from before, and not to be had.
        errors: the lines of those that failed. seconds: of this run.
    """

    folder: Path
    made: int = 0
    kept: int = 0
    failed: int = 0
    errors: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False


@dataclass(frozen=True)
class Checked:
    """Rows after checking: what they want, once each, and the lines of the rows that cannot be used."""

    wanted: list[Wanted]
    refused: list[Line]
    first_error: InputError | None = None


def check(rows: Iterable[Mapping[str, Any]], common: Rows, on_error: str = "continue") -> Checked:
    """Check all rows before anything loads.

    Raises:
        InputError: no row, or none that can be used; or one that cannot, where that is to stop the batch; what leads
            outside the manifest's folder is refused for all.
    """
    wanted: dict[str, Wanted] = {}
    refused: list[Line] = []
    first: InputError | None = None
    number = 0
    for number, row in enumerate(rows, 1):
        try:
            for one in common.wanted(number, row):
                wanted.setdefault(one.identity, one)
        except InputError as error:
            if error.option == "--manifest":
                raise
            if on_error == "stop":
                raise InputError(error.option, f"{error.found} (row {number})", error.allowed) from error
            first = first or error
            about = {key: row[key] for key in ("image", "prompt") if isinstance(row, Mapping) and _text(row.get(key))}
            refused.append(failure(number, digest(str(row)), str(error), **about))
    if not number:
        raise InputError("--manifest", "no rows", "one or more")
    if first is not None and not wanted:
        raise first
    return Checked(list(wanted.values()), refused, first)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def carry_out(checked: Checked, folder: Path, way: Way, tell: Callable[[str], None] = lambda _: None) -> BatchResult:
    """Make what the folder lacks, a picture and a line each.

    Args:
        tell: is told of each failure, in a line.

    Raises:
        InputError: the folder cannot be used.
        FreectlError: nothing can be written, or all workers have died.
    """
    begun = perf_counter()
    with Journal(folder).opened(way.resume) as journal:
        there = journal.recover(checked.wanted)
        missing = [one for one in checked.wanted if one.identity not in there]
        result = BatchResult(folder, kept=len(checked.wanted) - len(missing))
        total = len(checked.wanted) + len(checked.refused)
        with _bar(total, result.kept, way.progress) as bar, closing(_lines(checked, missing, journal, way)) as lines:
            for line in lines:
                journal.append(line)
                if "error" in line:
                    bar.write(f"row {line['row']} failed: {line['error']}", tell)
                    result = replace(result, failed=result.failed + 1, errors=[*result.errors, line])
                else:
                    result = replace(result, made=result.made + 1)
                bar.update()
                if "error" in line and way.on_error == "stop":
                    result = replace(result, stopped=True)
                    break
        return replace(result, seconds=perf_counter() - begun)


def _lines(checked: Checked, missing: Sequence[Wanted], journal: Journal, way: Way) -> Generator[Line]:
    yield from checked.refused
    if not missing:
        return
    made = bundles(missing, way.batch_size or MOST, way.workers)
    threads = max(1, (os.cpu_count() or 1) // way.workers) if way.workers > 1 else None
    make = partial(Worker, Spec(str(journal.folder), way.batch_size, way.cache, threads))
    by_identity = {one.identity: one for one in missing}
    try:
        for bundle, answer in engines.engine(way.engine, way.workers, way.ray_address)(
            make, [plain(bundle) for bundle in made]
        ):
            if not isinstance(answer, Died):
                yield from answer
                continue
            for values in bundle:  # some may have been made before the process ended
                one = by_identity[values["identity"]]
                yield journal.written(one) or failure(one.row, one.identity, "the worker process died", image=one.image)
    finally:
        journal.leave(missing)


class _bar:  # noqa: N801 - a context manager, used as a function
    """Rate and time left on stderr; silent where no progress is shown."""

    def __init__(self, total: int, initial: int, shown: bool) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._inner = tqdm(
            total=total,
            initial=initial,
            unit="picture",
            smoothing=0.05,
            dynamic_ncols=True,
            disable=not shown,
            file=sys.stderr,
        )

    def __enter__(self) -> "_bar":
        return self

    def __exit__(self, *_: Any) -> None:
        self._inner.close()

    def write(self, text: str, tell: Callable[[str], None]) -> None:
        with self._tqdm.external_write_mode(file=sys.stderr):
            tell(text)

    def update(self) -> None:
        self._inner.update()


def checked_way(**given: Any) -> Way:
    """How a batch is carried out, from options.

    Raises:
        InputError: a value that cannot be used.
    """
    size = given.get("batch_size", "auto")
    if size != "auto" and not (str(size).isdecimal() and 1 <= int(size) <= LARGEST):
        raise InputError("--batch-size", repr(size), f"auto, or 1 to {LARGEST}")
    workers = given.get("workers", 1)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
        raise InputError("--workers", repr(workers), f"1 to {MOST_WORKERS}")
    if given.get("on_error", "stop") not in ("continue", "stop"):
        raise InputError("--on-error", repr(given["on_error"]), "continue, stop")
    engines.engine(given.get("engine", "local"), workers, given.get("ray_address"))
    return Way(**{**given, "batch_size": None if size == "auto" else int(size)})


class BatchOptions(CompareOptions, total=False):
    """Keyword arguments of `batch` that are those of `freectl.edit`."""

    prompt: str
    method: str


@python_errors
def batch(
    rows: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    out: str | os.PathLike[str],
    *,
    name: str = names.DEFAULT,
    resume: bool = False,
    workers: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    on_error: Literal["continue", "stop"] = "continue",
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    allow_outside: bool = False,
    cache: bool = True,
    progress: bool = False,
    **options: Unpack[BatchOptions],
) -> BatchResult:
    """Edit many pictures; each gets a file and a line of results.jsonl in `out`.

    Args:
        rows: mappings with "image", "prompt" and whatever else `freectl.edit` takes, "seed" perhaps a list; or the path
            of a manifest, .jsonl, .csv or .parquet, whose paths are relative to its folder.
        out: folder, made if missing.
        name: of results, a template of the fields stem, seed, row, shard, method, preset, model, steps.
        resume: go on with what `out` holds: what is done stays, what failed is tried again.
        workers: processes or actors, each with the model.
        batch_size: pictures in one batch of the network; "auto" as free memory allows, up to 8.
        on_error: "continue" records a failure and goes on, "stop" ends there.
        engine: "local" for processes of this machine, "ray" for actors of a Ray cluster at `ray_address`.
        allow_outside: whether a manifest may name files outside its folder, and models of the hub.
        options: of `freectl.edit`, for all rows that do not say otherwise.

    Raises:
        InputError: no row can be used, or an argument cannot; nothing has been loaded then.
        FreectlError: nothing can be written, or all workers died.
    """
    way = checked_way(
        resume=resume,
        workers=workers,
        batch_size=batch_size,
        on_error=on_error,
        engine=engine,
        ray_address=ray_address,
        cache=cache,
        progress=progress,
    )
    Journal(Path(out), "out").check(resume)
    manifest = os.fspath(rows) if isinstance(rows, str | os.PathLike) else ""
    common = common_of(dict(options), Places(manifest, allow_outside), name)
    found: Any = read_manifest(manifest, "rows") if manifest else rows
    return carry_out(check(found, common, on_error), Path(out), way)


def common_of(values: Mapping[str, Any], places: Places, name: str = names.DEFAULT) -> Rows:
    """What holds for all rows, from options and settings by name."""
    from freectl.tasks.options import EditOptions

    options = {key: value for key, value in values.items() if key in EditOptions.model_fields}
    settings = {key: value for key, value in values.items() if key not in options}
    return Rows(options, settings, places, names.Names(name))


def raise_failed(result: BatchResult) -> None:
    """Raises FreectlError: some results could not be made."""
    if result.failed:
        total = result.failed + result.made + result.kept
        more = "; stopped at the first one" if result.stopped else ""
        raise FreectlError(f"{result.failed} of {total} failed, see {result.folder}/results.jsonl{more}")
