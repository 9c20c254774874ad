"""What a report is made of: result folders read, means with intervals, breakdowns, paired differences."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.cases import Layout
from eval.measures import ACCURACY, COSTS, MEASURES, MEMORY, STRUCTURE, Measure, measure
from eval.report_stats import Estimate, difference, estimate, share
from eval.store import Store
from freectl.errors import InputError

Line = dict[str, Any]


@dataclass
class Results:
    """All lines of some folders of one benchmark.

    Attributes:
        abouts: run.json of each folder, with "folder" and "sets" (sets.json, or None).
        by_variant: lines of each variant by case, in the order in which variants first occur.
        pictures: folder that a line's picture lies in, by (case, variant).
        plotted: keys of the trade-off plot's scores, upwards and across, in place of the layout's own.
    """

    layout: Layout
    abouts: list[dict[str, Any]]
    by_variant: dict[str, dict[str, Line]] = field(default_factory=dict)
    pictures: dict[tuple[str, str], Path] = field(default_factory=dict)
    plotted: tuple[str, str] | None = None

    @cached_property
    def measured(self) -> list[Measure]:
        """Scores that at least one line has."""
        keys = {key for line in self.lines for key, value in line["scores"].items() if value is not None}
        return [one for one in MEASURES[self.layout] if one.key in keys]

    @property
    def lines(self) -> list[Line]:
        """All lines."""
        return [line for lines in self.by_variant.values() for line in lines.values()]

    @property
    def cases(self) -> list[str]:
        """Keys of all cases, in the order in which they first occur."""
        return list(dict.fromkeys(case for lines in self.by_variant.values() for case in lines))

    @property
    def kinds(self) -> list[str]:
        """Edit types."""
        return list(dict.fromkeys(line["kind"] for line in self.lines))

    @property
    def shared(self) -> list[str]:
        """Cases that every variant has."""
        sets = [set(lines) for lines in self.by_variant.values()]
        return [case for case in self.cases if all(case in one for one in sets)]

    @property
    def accuracy(self) -> Measure | None:
        """The score that says whether the edit happened, if it was measured."""
        return self._measure(ACCURACY[self.layout])

    @property
    def structure(self) -> Measure | None:
        """The distance that says how much structure was kept, if one was measured."""
        return next((one for key in STRUCTURE[self.layout] if (one := self._measure(key))), None)

    @property
    def trade_off(self) -> tuple[Measure | None, Measure | None]:
        """What the Pareto plot shows upwards and across."""
        if self.plotted is None:
            return self.accuracy, self.structure
        return self._measure(self.plotted[0]), self._measure(self.plotted[1])

    def _measure(self, key: str) -> Measure | None:
        return next((one for one in self.measured if one.key == key), None)


def read(folders: Sequence[Path]) -> Results:
    """Read result folders; a variant that several have is the union of its cases.

    Raises:
        InputError: a folder without results, or folders of different benchmarks.
    """
    abouts: list[dict[str, Any]] = []
    results = None
    for folder in folders:
        store = Store(folder)
        about, lines = store.about(), store.lines()
        if not about or not lines:
            raise InputError("DIR", f"'{folder}' without results", "folders that eval.run wrote")
        if results is None:
            results = Results(about["layout"], abouts)
        if abouts and about["digest"] != abouts[0]["digest"]:
            raise InputError("DIR", f"'{folder}' of another benchmark ({about['bench']})", f"{abouts[0]['bench']}")
        abouts.append(about | {"folder": str(folder), "sets": stored_sets(folder)})
        for line in lines:
            results.by_variant.setdefault(line["variant"], {})[line["case"]] = line
            results.pictures[line["case"], line["variant"]] = folder
    if results is None:
        raise InputError("DIR", "nothing", "folders that eval.run wrote")
    return results


def stored_sets(folder: Path) -> dict[str, Any] | None:
    """Scores of whole sets, where a run has stored them; read without the networks' packages."""
    path = folder / "sets.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


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
    """A line's cost: seconds of its stages without loading, or an entry of the cost record."""
    if key == "seconds":
        return line["cost"]["seconds"]["total"] - line["cost"]["seconds"]["load"]
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
        for one in COSTS:
            values = [value for line in own if (value := cost_of(line, one.key)) is not None]
            pick = max if one is MEMORY else statistics.median
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
    if baseline not in results.by_variant:
        raise InputError("--baseline", f"'{baseline}'", ", ".join(results.by_variant))
    base = results.by_variant[baseline]
    table: dict[str, dict[str, Estimate]] = {}
    for variant, lines in results.by_variant.items():
        if variant == baseline:
            continue
        table[variant] = {}
        for one in results.measured:
            pairs = [
                (lines[case]["scores"].get(one.key), base[case]["scores"].get(one.key))
                for case in lines
                if case in base
            ]
            pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
            if pairs:
                table[variant][one.key] = difference([a for a, _ in pairs], [b for _, b in pairs])
    return table


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
