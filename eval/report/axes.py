"""Trained generators against training-free methods: generality, efficiency, quality and diversity.

`python -m eval.axes DIR... --styles noto:fluent` reads folders that eval.run wrote for mini benchmarks (the generators'
own style benchmark with several seeds, and others with --gan-anything) and prints one Markdown table.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from eval.files import PROMPTS, write_text
from eval.report.axes_lines import group_of, read
from eval.report.axes_table import table
from freectl.errors import unknown
from freectl.mini.domain import OBJECTS

RUNS = PROMPTS / "gan_runs.yaml"


def axes(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that eval.run wrote.")],
    styles: Annotated[str, typer.Option(help="FROM:TO, what the generators were trained for.")] = "noto:fluent",
    unseen: Annotated[
        str | None, typer.Option(help="Objects that no training picture shows.  [default: prompts/gan_runs.yaml]")
    ] = None,
    variants: Annotated[str | None, typer.Option(help="Only these, with semicolons between.  [default: all]")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table here.")] = None,
) -> None:
    """Print the table."""
    from eval.gans.given import parse_styles

    pair = parse_styles(styles, "--styles")
    left_out = _objects(unseen)
    found = read(folders)
    known = list(dict.fromkeys(one.line["variant"] for one in found))
    wanted = [text.strip() for text in variants.split(";")] if variants else known
    for name in wanted:
        if name not in known:
            raise unknown("--variants", name, known)
    found = [one for one in found if one.line["variant"] in wanted]
    text = table(found, group_of(pair or ("", ""), left_out))
    if out is not None:
        write_text(out, text)
    sys.stdout.write(text)


def _objects(text: str | None) -> list[str]:
    if text is None:
        return yaml.safe_load(RUNS.read_text())["data"]["test_objects"]
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in OBJECTS:
            raise unknown("--unseen", word, OBJECTS)
    return words
