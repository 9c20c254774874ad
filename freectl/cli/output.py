"""How results leave the command line: one JSON object, text for people, or nothing."""

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import panels
from freectl.errors import FreectlError, one_line, visible

_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # what JSON itself leaves as it is


class Format(StrEnum):
    """What goes to stdout."""

    human = "human"
    json = "json"
    quiet = "quiet"


FormatOption = Annotated[Format, panels.result("--format", help="What goes to stdout.")]


def say(text: str, *, err: bool = False) -> None:
    """Print a line.

    Raises:
        FreectlError: standard output is full or closed. BrokenPipeError: its reader has gone.
    """
    try:
        typer.echo(text, err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FreectlError(f"standard output cannot be written: {error.strerror or error}") from error


def emit(value: Any, text: str, form: Format) -> None:
    """Print `value` as one line of JSON, or `text`, or nothing; what a terminal would obey is escaped."""
    if form is Format.json:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
        say(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line))
    elif form is Format.human and text:
        say(visible(text, keep="\n"))


def warn(texts: Sequence[str], form: Format) -> None:
    """Print warnings, one a line, where people read them: with the results, or else on stderr."""
    for text in texts:
        say(one_line(f"warning: {text}"), err=form is not Format.human)


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


def cost_text(cost: dict[str, Any]) -> str:
    """What a run cost, in a line."""
    hits = ", ".join(kind for kind, hit in cost["cached"].items() if hit) or "nothing"
    return (
        f"{cost['row_forwards']:g} row forwards, {cost['row_backwards']} row backwards, "
        f"{cost['seconds']['total']:.1f} s; cached: {hits}"
    )


def written_text(record: dict[str, Any], size: tuple[int, int], advice: str = "") -> str:
    """The last line of a run, for people: file, size, seconds, and what to try next."""
    path, seconds = Path(record["output"]), record["cost"]["seconds"]["total"]
    line = f"{path}  ({size[0]}x{size[1]} px, {size_text(path.stat().st_size)}, {seconds:.1f} s)"
    return f"{line}; next: {advice}" if advice else line


def quiet_libraries() -> None:
    """Libraries' own loading bars and advice do not belong on the terminal."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
