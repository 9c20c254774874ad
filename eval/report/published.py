"""The papers' tables with ours above them, in the papers' columns."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from eval.report.html import cell, note, table
from eval.results.reading import Results
from eval.results.summary import by_kind, summary
from eval.scores.measures import PAPERS_COSTS, Measure, measure

LEGEND = "Evidence: P read in the paper, S secondary (to be checked before it is quoted), U not verified."
Rows = list[list[str]]


def published_tables(results: Results, published: dict[str, Any]) -> str:
    """Our rows, then the papers' tables; a table of one kind of case has our rows of that kind on top.

    Args:
        published: of the results' layout, see `eval.report.command.published_for`.
    """
    columns = [measure(results.layout, key) for key in published["columns"]]
    tables = published["tables"]
    ours = [
        [escape(row.variant), "this run", *(cell(one, row.scores.get(one.key)) for one in columns)]
        for row in summary(results)
    ]
    parts = [table("This run", ["method", "evidence", *columns], ours)]
    parts += _printed(tables, columns, lambda printed: _of_kind(results, columns, printed.get("kind")))
    if "costs" in published:
        costs = [_costs(row.variant, row.costs) for row in summary(results)]
        parts += _printed(published["costs"]["tables"], PAPERS_COSTS, lambda _printed: costs)
    return "".join([*parts, note(LEGEND)])


def _of_kind(results: Results, columns: Sequence[Measure], kind: str | None) -> Rows:
    """Our rows of one kind of case; none where the run has no such cases."""
    if kind not in results.kinds:
        return []
    found = {one.key: by_kind(results, one.key) for one in columns}
    rows = []
    for variant in results.by_variant:
        cells = [found[one.key][variant].get(kind) for one in columns]
        if any(value is not None for value in cells):
            told = [cell(one, value) for one, value in zip(columns, cells, strict=True)]
            rows.append([escape(variant), "this run", *told])
    return rows


def _costs(variant: str, costs: dict[str, float | None]) -> list[str]:
    return [escape(variant), "this run", *(one.text(costs.get(one.key)) for one in PAPERS_COSTS)]


def _printed(
    tables: Sequence[dict[str, Any]], columns: Sequence[Measure], ours: Callable[[dict[str, Any]], Rows]
) -> list[str]:
    parts = []
    for printed in tables:
        lines = ours(printed)
        for row in printed["rows"]:
            unsure = row.get("unsure", [])
            values = [
                ("-" if value is None else f"{value:.{one.digits}f}") + (" (U)" if one.key in unsure else "")
                for one, value in zip(columns, row["values"], strict=True)
            ]
            lines = [*lines, [escape(row["method"]), printed["evidence"], *values]]
        made = table(printed["title"], ["method", "evidence", *columns], lines, "published")
        parts.append(f"<h3>{escape(printed['title'])}</h3>{made}")
        parts.append(note(f"Source: {printed['source']}."))
    return parts
