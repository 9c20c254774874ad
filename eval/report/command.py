"""Make a report of result folders: `python -m eval.report DIR... --out report.html`.

One self-contained HTML file; beside it the summary as .csv and .md, all scores as .cases.csv, the plot as .pareto.svg.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.files import PROMPTS, write_text
from freectl.errors import InputError

PUBLISHED = PROMPTS / "published.yaml"


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that eval.run wrote.")],
    out: Annotated[Path | None, typer.Option(help="HTML file.  [default: report.html in the first folder]")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Variant that others are compared with.  [default: first]")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of the Markdown table, with commas between, such as target,iou,seconds.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Cases in the picture grid.", min=0)] = 24,
    plot: Annotated[
        str | None,
        typer.Option(help="Scores of the trade-off plot, UP,ACROSS.  [default: accuracy against structure]"),
    ] = None,
) -> None:
    """Tables with intervals, trade-off and cost plots, picture grids: one HTML file, CSV and Markdown beside it."""
    from eval.report.page import page
    from eval.report.plots import pareto_svg
    from eval.results.reading import read
    from eval.results.tables import cases_csv, summary_csv, summary_markdown
    from eval.scores.measures import COSTS

    results = read(folders)
    target = out or folders[0] / "report.html"
    if target.suffix not in (".html", ".htm") or not target.parent.is_dir():
        raise InputError("--out", f"'{target}'", "a .html file in an existing folder")
    keys = [key.strip() for key in columns.split(",")] if columns else []
    known = [one.key for one in (*results.measured, *COSTS)]
    if odd := [key for key in keys if key not in known]:
        raise InputError("--columns", f"'{odd[0]}'", ", ".join(known))
    if plot is not None:
        pair = [key.strip() for key in plot.split(",")]
        scores = [one.key for one in results.measured]
        if len(pair) != 2 or not set(pair) <= set(scores):
            raise InputError("--plot", f"'{plot}'", f"two of {', '.join(scores)}, with a comma between")
        results.plotted = (pair[0], pair[1])
    texts = {
        target: page(results, baseline=baseline, rows=rows, published=published_for(results.layout)),
        target.with_suffix(".csv"): summary_csv(results),
        target.with_suffix(".cases.csv"): cases_csv(results),
        target.with_suffix(".md"): summary_markdown(results, keys),
    }
    if (drawn := pareto_svg(results)) is not None:
        texts[target.with_suffix(".pareto.svg")] = drawn
    for path, text in texts.items():
        write_text(path, text)
    sys.stdout.write(summary_markdown(results, keys) + f"\n{target}\n")


def published_for(layout: str) -> dict[str, Any] | None:
    """The papers' numbers for benchmarks of a layout, with "costs" where some are told of its methods; or None."""
    import yaml

    everything = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    costs = [table for table in everything["cost"]["tables"] if layout in table.get("beside", ())]
    found = everything.get(layout)
    return found and found | ({"costs": everything["cost"] | {"tables": costs}} if costs else {})
