"""Results as text: a table for reading, and two of comma-separated values."""

import csv
import io
from collections.abc import Sequence

from eval.results.reading import Results
from eval.results.summary import cost_of, summary
from eval.scores.measures import COSTS


def summary_csv(results: Results) -> str:
    """One line a variant: mean, low and high of each score, and the costs."""

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    scores = [f"{one.key}{part}" for one in results.measured for part in ("", "_low", "_high")]
    writer.writerow(["variant", "cases", *scores, *(one.key for one in COSTS)])
    for row in summary(results):
        found = [row.scores.get(one.key) for one in results.measured]
        values = [v for one in found for v in ((one.mean, one.low, one.high) if one else ("", "", ""))]
        writer.writerow([row.variant, row.count, *values, *(row.costs[one.key] for one in COSTS)])
    return stream.getvalue()


def cases_csv(results: Results) -> str:
    """One line a case and variant: all scores and costs."""

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "kind", "variant", *(one.key for one in (*results.measured, *COSTS))])
    for line in results.lines:
        scores = [line["scores"].get(one.key) for one in results.measured]
        costs = [cost_of(line, one.key) for one in COSTS]
        writer.writerow([line["case"], line["kind"], line["variant"], *scores, *costs])
    return stream.getvalue()


def summary_markdown(results: Results, columns: Sequence[str] = ()) -> str:
    """The summary table: means with their 95 % intervals; costs without.

    Shares as `97.9 (89.1 to 99.6)`, since their intervals are lopsided; others with half the width, `0.786 ± 0.013`.

    Args:
        columns: keys of scores and costs, in this order; empty means all.
    """

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
