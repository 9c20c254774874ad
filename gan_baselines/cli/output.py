"""How results leave the command line: one JSON object, text for people, or nothing."""

import json
import math
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
    """Print `value` as one line of JSON (numbers that are not finite become null), or `text`, or nothing."""
    if form is Format.json:
        typer.echo(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))
    elif form is Format.human and text:
        typer.echo(text)


def columns(rows: list[list[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
