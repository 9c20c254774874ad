"""What a report is made of: means with intervals, breakdowns, paired differences."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from eval.results.reading import Line, Results
from eval.scores.intervals import Estimate, difference, estimate, share, share_difference
from eval.scores.measures import COSTS, CPU, MEMORY, PAPERS_COSTS, Measure, measure
from freectl.errors import InputError

STAGES = {"preprocess_seconds": "analysis", "run_seconds": "synthesis"}
"""Costs that are the seconds of one stage of an edit."""


@dataclass(frozen=True)
class Row:
    """One variant's summary: estimates by measure, medians of the costs; `place` orders the points of a curve."""

    variant: str
    curve: str
    count: int
    scores: dict[str, Estimate]
    costs: dict[str, float | None]
    place: tuple[float, ...] = ()


def cost_of(line: Line, key: str) -> float | None:
    """A line's cost: seconds of its stages without loading, of the processor, or an entry of the cost record."""
    seconds = line["cost"]["seconds"]
    if key == "seconds":
        return seconds["total"] - seconds["load"]
    if key == CPU.key:
        return line.get(key)
    if key in STAGES:
        return seconds.get(STAGES[key])
    return line["cost"].get(key)


def summary(results: Results) -> list[Row]:
    """One row a variant. Costs are medians, so that a case that built bases for all others does not count."""
    rows = []
    swept: dict[str, list[str]] = {}
    for line in results.lines:
        known = swept.setdefault(line["curve"], [])
        known += [key for key in line["swept"] if key not in known]
    for variant, lines in results.by_variant.items():
        own = list(lines.values())
        costs = {}
        for one in (*COSTS, *PAPERS_COSTS):
            values = [value for line in own if (value := cost_of(line, one.key)) is not None]
            pick = max if one.key == MEMORY.key else statistics.median
            costs[one.key] = pick(values) if values else None
        place = _place(own[0], swept.get(own[0]["curve"], []))
        rows.append(Row(variant, own[0]["curve"], len(own), scores_of(results, own), costs, place))
    return rows


def _place(line: Line, keys: Sequence[str]) -> tuple[float, ...]:
    """Values of the curve's swept settings as the method used them, also where a default was left alone."""
    values = [line["settings"].get(key, line["swept"].get(key)) for key in keys]
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()


def scores_of(results: Results, lines: Sequence[Line]) -> dict[str, Estimate]:
    """Estimates of all measures over these lines; measures that none of them has are left out."""
    found = {}
    for one in results.measured:
        values = [line["scores"][one.key] for line in lines if line["scores"].get(one.key) is not None]
        if values:
            found[one.key] = share(values) if one.share else estimate(values)
    return found


def by_kind(results: Results, key: str) -> dict[str, dict[str, Estimate]]:
    """Estimates of one measure by variant and edit type."""
    table: dict[str, dict[str, Estimate]] = {}
    one = measure(results.layout, key)
    for variant, lines in results.by_variant.items():
        table[variant] = {}
        for kind in results.kinds:
            own = [line for line in lines.values() if line["kind"] == kind]
            values = [line["scores"][key] for line in own if line["scores"].get(key) is not None]
            if values:
                table[variant][kind] = share(values) if one.share else estimate(values)
    return table


def differences(results: Results, baseline: str) -> dict[str, dict[str, Estimate]]:
    """Variant minus baseline, over the cases that both have, by variant and measure.

    Raises:
        InputError: no such variant.
    """
    base = _base(results, baseline)
    found = {
        variant: {one.key: _difference(one, lines, base) for one in results.measured}
        for variant, lines in results.by_variant.items()
        if variant != baseline
    }
    return {variant: {key: value for key, value in own.items() if value} for variant, own in found.items()}


def differences_by_kind(results: Results, baseline: str, key: str) -> dict[str, dict[str, Estimate]]:
    """Variant minus baseline of one measure, over the cases of each kind that both have, by variant and kind.

    Raises:
        InputError: no such variant.
    """
    base, one = _base(results, baseline), measure(results.layout, key)
    table: dict[str, dict[str, Estimate]] = {}
    for variant, lines in results.by_variant.items():
        if variant != baseline:
            for kind in results.kinds:
                own = {case: line for case, line in lines.items() if line["kind"] == kind}
                if found := _difference(one, own, base):
                    table.setdefault(variant, {})[kind] = found
    return table


def _base(results: Results, baseline: str) -> dict[str, Line]:
    if baseline not in results.by_variant:
        raise InputError("--baseline", f"'{baseline}'", ", ".join(results.by_variant))
    return results.by_variant[baseline]


def _difference(one: Measure, lines: dict[str, Line], base: dict[str, Line]) -> Estimate | None:
    """Mean difference over the cases that both have; None where there are none."""
    shared = [(lines[case]["scores"].get(one.key), base[case]["scores"].get(one.key)) for case in lines if case in base]
    pairs = [(a, b) for a, b in shared if a is not None and b is not None]
    compare = share_difference if one.share else difference
    return compare([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def disagreement(results: Results, case: str, variants: Sequence[str]) -> float:
    """How far apart the variants are on a case: sum of the standard deviations of its scores, each over its range."""
    total = 0.0
    for one in results.measured:
        everywhere = [line["scores"].get(one.key) for line in results.lines]
        known = [value for value in everywhere if value is not None]
        own = [results.by_variant[v][case]["scores"].get(one.key) for v in variants if case in results.by_variant[v]]
        values = [value for value in own if value is not None]
        span = max(known) - min(known)
        if len(values) > 1 and span:
            total += statistics.pstdev(values) / span
    return total
