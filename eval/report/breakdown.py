"""Tables of differences from a baseline, and by edit type."""

from html import escape

from eval.report.html import cell, note, table
from eval.results.reading import Results
from eval.results.summary import by_kind, differences, differences_by_kind
from eval.scores.intervals import Estimate
from eval.scores.measures import BY_KIND, Measure, measure


def difference_table(results: Results, baseline: str) -> str:
    """Variants minus the baseline, case by case.

    Raises:
        InputError: no such variant.
    """
    lines = []
    for variant, found in differences(results, baseline).items():
        count = max((one.count for one in found.values()), default=0)
        cells = [escape(variant), str(count)]
        cells += [_difference(one, found.get(one.key)) for one in results.measured]
        lines.append(cells)
    intervals = "95 % interval leaves out zero: Bonett and Price's of shares, else a bootstrap's"
    told = note(f"Case by case; coloured where the {intervals}.")
    return table(f"Differences from {baseline}", ["variant", "cases", *results.measured], lines) + told


def _difference(one: Measure, value: Estimate | None) -> str:
    """A cell, coloured where the difference is clear."""
    kind = ""
    if value is not None and one.better and value.clear_of_zero:
        kind = "better" if value.mean * one.better > 0 else "worse"
    return cell(one, value, kind, sign=True)


def kind_tables(results: Results, baseline: str) -> str:
    """Some scores by kind of case, and their differences from the baseline, a table each."""
    parts = []
    measured = {one.key for one in results.measured}
    for key in BY_KIND[results.layout]:
        if key not in measured:
            continue
        one, found = measure(results.layout, key), by_kind(results, key)
        lines = [
            [escape(variant), *(cell(one, own.get(kind)) for kind in results.kinds)] for variant, own in found.items()
        ]
        made = table(f"{one.title} by kind", ["variant", *results.kinds], lines, better=one.better)
        parts.append(f"<h3>{escape(one.head)}</h3>{made}")
        apart = differences_by_kind(results, baseline, key)
        lines = [[escape(variant), *(_difference(one, own.get(kind)) for kind in results.kinds)]
                 for variant, own in apart.items()]  # fmt: skip
        if lines:
            name = f"{one.head}, differences from {baseline}"
            parts.append(f"<h4>{escape(name)}</h4>{table(name, ['variant', *results.kinds], lines, better=one.better)}")
    return "".join(parts)
