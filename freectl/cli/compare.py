"""`freectl edit` with several methods: a result file each, and one labelled sheet."""

from pathlib import Path
from typing import Any

import typer

from freectl.cli.output import Format, emit, quiet_libraries


def run_methods(
    image: Any, options: Any, overrides: dict[str, Any], target: Path, cache: bool, sheet: bool, form: Format
) -> None:
    """Run the methods that `options.method` names; results go to NAME_METHOD beside `target`, with their records.

    Raises:
        InputError: an input cannot be used by any method; nothing has been loaded then.
        FreectlError: the model cannot be loaded, or every method failed.
    """
    from freectl.files import pictures
    from freectl.files import record as records
    from freectl.tasks import compare as comparing

    names = comparing.chosen(options.method, overrides)
    picture = pictures.load_image(image)
    planned = comparing.plans(picture, names, options, overrides)
    quiet_libraries()
    entries = comparing.run(planned, cache=cache, progress=form is not Format.quiet)
    results, lines = [], []
    for entry in entries:
        record = entry.record
        if entry.result is not None:
            path = target.with_name(f"{target.stem}_{entry.method}{target.suffix}")
            record = {"output": str(path), **record}
            records.save_image(entry.result.image, path, record)
            lines.append(f"{path}  ({entry.label})")
        else:
            lines.append(f"{entry.method} failed: {entry.error}")
        lines += [f"warning: {text}" for text in record["warnings"]]
        results.append(record)
    summary = {
        "output": None,
        **records.head(options),
        "results": results,
    }
    if sheet:
        beside = target.with_name(f"{target.stem}_compare.png")
        records.save_image(comparing.sheet(entries, picture.image), beside)
        summary["output"] = str(beside)
        lines.append(str(beside))
    if form is not Format.human:
        for entry in entries:
            for text in [
                *entry.record["warnings"],
                *([f"{entry.method} failed: {entry.error}"] if entry.error else []),
            ]:
                typer.echo(f"warning: {text}", err=True)
    emit(summary, "\n".join(lines), form)
