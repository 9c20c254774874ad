"""The first table of a report: every variant's means and costs, and what a reader must know of them."""

from collections.abc import Sequence
from html import escape

from eval.report.html import cell, note, table
from eval.results.reading import Results
from eval.results.summary import Row, summary
from eval.scores.measures import COSTS, MEASURES, Measure


def overview(results: Results) -> str:
    """The table with its notes."""
    rows = summary(results)
    steps = {row.variant: steps_of(results, row.variant) for row in rows}
    several = len(set(steps.values())) > 1
    best = {one.key: best_variants(results, rows, one) for one in results.measured}
    lines = []
    for row in rows:
        cells = [escape(row.variant), str(row.count), *([steps[row.variant]] if several else [])]
        for one in results.measured:
            cells.append(cell(one, row.scores.get(one.key), "best" if row.variant in best[one.key] else ""))
        lines.append([*cells, *(one.text(row.costs[one.key]) for one in COSTS)])
    heads: list[str | Measure] = ["variant", "cases", *(["steps"] if several else []), *results.measured, *COSTS]
    return table("Summary", heads, lines) + "".join(_notes(results, rows, any(best.values())))


def steps_of(results: Results, variant: str) -> str:
    """Steps that a variant was run with."""
    found = sorted({line["steps"] for line in results.by_variant[variant].values()})
    return ", ".join(map(str, found))


def best_variants(results: Results, rows: Sequence[Row], one: Measure) -> set[str]:
    """Variants with the best mean of a score among those of the same cases and steps; none where nothing compares.

    A mean of other cases, or of more steps, is better for another reason.
    """
    groups: dict[tuple[frozenset[str], str], list[Row]] = {}
    for row in rows if one.better else ():
        lines = results.by_variant[row.variant]
        cases = frozenset(case for case, line in lines.items() if line["scores"].get(one.key) is not None)
        if cases:
            groups.setdefault((cases, steps_of(results, row.variant)), []).append(row)
    found = set()
    for own in groups.values():
        top = (max if one.better > 0 else min)(row.scores[one.key].mean for row in own)
        found |= {row.variant for row in own if len(own) > 1 and row.scores[one.key].mean == top}
    return found


def _notes(results: Results, rows: Sequence[Row], marked: bool) -> list[str]:
    meanings = "; ".join(f"{one.title}: {one.meaning}" for one in (*results.measured, *COSTS))
    best = "Marked: the best of the rows of the same cases and steps. " if marked else ""
    notes = [note(f"Mean, and 95 % interval over cases: Wilson's of shares, else a bootstrap's. {best}{meanings}.")]
    notes += [*_told(results), *_fewer(results, rows)]
    asked = {key for line in results.lines for key in line["scores"]}  # a case without a mask has no background
    missing = [one.title for one in MEASURES[results.layout] if one.key in asked and one not in results.measured]
    if missing:
        notes.append(note(f"Not measured: {', '.join(missing)}."))
    if len(results.shared) < len(results.cases):
        shared = f"{len(results.shared)} of {len(results.cases)} cases have every variant"
        notes.append(note(f"{shared}: compare variants by the differences below, which use shared cases only."))
    return notes


def _told(results: Results) -> list[str]:
    texts = dict.fromkeys(text for line in results.lines for text in line.get("notes", []))
    networks: dict[str, dict[str, dict[str, None]]] = {}
    for line in results.lines:
        for name, network in line.get("networks", {}).items():
            networks.setdefault(name, {}).setdefault(str(network), {})[line["variant"]] = None
    lines = [note(text) for text in texts]
    if networks:
        listed = "; ".join(f"{name}: {_used(own)}" for name, own in networks.items())
        lines.append(note(f"Networks. {listed}."))
    return lines


def _used(own: dict[str, dict[str, None]]) -> str:
    """The network of a score, or which variants have which."""
    if len(own) == 1:
        return next(iter(own))
    return " and ".join(f"{name} ({', '.join(of)})" for name, of in own.items()) + ", which do not compare"


def _fewer(results: Results, rows: Sequence[Row]) -> list[str]:
    """A note on means that leave cases out."""
    alike: dict[str, list[str]] = {}
    for one in results.measured:
        counts = {row.variant: row.scores[one.key].count for row in rows if one.key in row.scores}
        fewer = [
            f"{counts[row.variant]} of {row.variant}" for row in rows if counts.get(row.variant, row.count) < row.count
        ]
        if fewer:
            alike.setdefault(", ".join(fewer), []).append(one.title)
    listed = "; ".join(f"{', '.join(titles)}: {fewer}" for fewer, titles in alike.items())
    text = "Means of fewer cases, since the others lack a background or a source prompt."
    return [note(f"{text} {listed}.")] if alike else []
