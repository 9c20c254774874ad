"""How results leave the command line: one JSON object, text for people, or nothing."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """What goes to stdout."""

    human = "human"
    json = "json"
    quiet = "quiet"


FormatOption = Annotated[Format, typer.Option("--format", help="What goes to stdout.")]


def emit(value: Any, text: str, form: Format) -> None:
    """Print `value` as one line of JSON, or `text`, or nothing."""
    if form is Format.json:
        typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    elif form is Format.human and text:
        typer.echo(text)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]
    ]
    return "\n".join(lines)


def size_text(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def emit_run(record: dict[str, Any], notes: list[str], beside: list[Any], form: Format) -> None:
    """Print a finished run: its record as JSON, or where the result is, what it cost and what to know of it.

    Args:
        notes: device, dtype and why. beside: further files that were written.
    """
    warnings = [f"warning: {text}" for text in record["warnings"]]
    cost = record["cost"]
    hits = ", ".join(kind for kind, hit in cost["cached"].items() if hit) or "nothing"
    spent = (
        f"{cost['row_forwards']:g} row forwards, {cost['row_backwards']} row backwards, "
        f"{cost['seconds']['total']:.1f} s; cached: {hits}"
    )
    if form is not Format.human:
        for text in warnings:
            typer.echo(text, err=True)
    emit(record, "\n".join([f"{record['output']}  ({', '.join(notes)})", *warnings, *map(str, beside), spent]), form)


def quiet_libraries() -> None:
    """Libraries' own loading bars and advice do not belong on the terminal."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
