"""Make a report of result folders: `python -m eval.report DIR... --out report.html`.

One self-contained HTML file; beside it the summary as .csv and .md, all scores as .cases.csv, the plot as .pareto.svg.
"""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.run import guarded
from eval.store import write_text
from freectl.errors import InputError

PUBLISHED = Path(__file__).resolve().parent.parent / "prompts" / "published.yaml"


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
    from eval.measures import COSTS
    from eval.report_html import page
    from eval.report_plots import pareto_svg
    from eval.results import read

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
    """The papers' numbers for benchmarks of a layout, or None."""
    import yaml

    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).get(layout)


def summary_csv(results: Any) -> str:
    """One line a variant: mean, low and high of each score, and the costs."""
    from eval.measures import COSTS
    from eval.report_data import summary

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    scores = [f"{one.key}{part}" for one in results.measured for part in ("", "_low", "_high")]
    writer.writerow(["variant", "cases", *scores, *(one.key for one in COSTS)])
    for row in summary(results):
        found = [row.scores.get(one.key) for one in results.measured]
        values = [v for one in found for v in ((one.mean, one.low, one.high) if one else ("", "", ""))]
        writer.writerow([row.variant, row.count, *values, *(row.costs[one.key] for one in COSTS)])
    return stream.getvalue()


def cases_csv(results: Any) -> str:
    """One line a case and variant: all scores and costs."""
    from eval.measures import COSTS
    from eval.report_data import cost_of

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "kind", "variant", *(one.key for one in (*results.measured, *COSTS))])
    for line in results.lines:
        scores = [line["scores"].get(one.key) for one in results.measured]
        costs = [cost_of(line, one.key) for one in COSTS]
        writer.writerow([line["case"], line["kind"], line["variant"], *scores, *costs])
    return stream.getvalue()


def summary_markdown(results: Any, columns: Sequence[str] = ()) -> str:
    """The summary table: means with their 95 % intervals; costs without.

    Shares as `97.9 (89.1 to 99.6)`, since their intervals are lopsided; others with half the width, `0.786 ± 0.013`.

    Args:
        columns: keys of scores and costs, in this order; empty means all.
    """
    from eval.measures import COSTS
    from eval.report_data import summary

    known = {one.key: one for one in (*results.measured, *COSTS)}
    shown = [known[key] for key in columns] if columns else list(known.values())
    lines = ["| " + " | ".join(["variant", "cases", *(one.head for one in shown)]) + " |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for row in summary(results):
        cells = [row.variant, str(row.count)]
        for one in shown:
            found = row.scores.get(one.key)
            cells.append(one.spread(found) if found else one.text(row.costs.get(one.key)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    guarded(report)
