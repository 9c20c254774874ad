"""`freectl edit` with several methods: a result file each, as it comes, and one labelled sheet."""

from pathlib import Path
from typing import Any

from freectl.cli.job import Job
from freectl.cli.output import Format, emit, quiet_libraries, warn


def run_methods(image: Any, options: Any, overrides: dict[str, Any], job: Job) -> None:
    """Run the methods that `options.method` names; results go to NAME_METHOD beside the target, with their records.

    Raises:
        InputError: an input cannot be used by any method; nothing has been loaded then.
        FreectlError: the model cannot be loaded, or every method failed.
    """
    from freectl.files import record as records
    from freectl.tasks import compare as comparing
    from freectl.tasks.inputs import read_input

    given = options.appearance_image is not None
    names = comparing.chosen(options.method, overrides, appearance=given, model=options.model)
    places = {name: job.place(name) for name in names}
    if job.sheet:
        job.place("compare", ".png")
    picture = read_input(image, options)
    planned = comparing.plans(picture, names, options, overrides)
    quiet_libraries()
    results: list[dict[str, Any]] = []

    def each(entry: Any) -> None:
        results.append(_written(entry, places[entry.method], picture.image, job))

    entries = comparing.run(planned, cache=job.cache, progress=job.progress, each=each)
    summary = {"output": None, **records.head(options), "results": results}
    line = f"{sum('error' not in one for one in results)} of {len(results)} methods"
    if job.sheet:
        sheet = job.write_sheet(comparing.cells(entries, picture.image), job.target)
        warn(job.outputs.take_notes(), job.form)
        summary["output"] = str(sheet)
        line = f"{sheet}  ({line} side by side)"
    emit(summary, line, job.form)


def _written(entry: Any, place: Path, source: Any, job: Job) -> dict[str, Any]:
    """Write a method's result and tell of it; its record."""
    record = entry.record
    failed = [f"{entry.method} failed: {entry.error}"] if entry.error else []
    if entry.result is not None:
        record = job.write(entry.result.image, record, place, source)
        line = f"{record['output']}  ({entry.label})"
        emit(None, line, job.form if job.form is Format.human else Format.quiet)
    warn(record["warnings"], job.form)
    warn(failed, Format.quiet)  # on stderr: it is no result
    return record
