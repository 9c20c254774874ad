"""Result folders as a report reads them: all lines of one benchmark, by variant and case."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.bench.cases import Layout
from eval.files import parsed
from eval.results.forms import About, ResultLine, Sets, check_form
from eval.results.store import SETS, Store
from eval.scores.measures import ACCURACY, MEASURES, STRUCTURE, Measure
from freectl.errors import InputError

Line = dict[str, Any]
SETTINGS = ("model", "weights", "steps", "seed", "dtype")
"""Entries of run.json that a variant's results depend on."""


@dataclass
class Results:
    """All lines of some folders of one benchmark.

    Attributes:
        abouts: run.json of each folder, with "folder", "labels" (what its variants are called here, by name) and "sets"
            (sets.json, or None).
        by_variant: lines of each variant by case, in the order in which variants first occur.
        pictures: folder that a line's picture lies in, by (case, variant); without those of folders without pictures.
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
    def pictured(self) -> list[str]:
        """Variants all of whose results have their pictures."""
        own = self.by_variant.items()
        return [variant for variant, lines in own if all((case, variant) in self.pictures for case in lines)]

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
    """Read result folders; only run.json and results.jsonl need be there.

    A variant of several folders is the union of its cases, unless the folders differ in their settings or both have a
    case: then the later folder's is a variant of its own, called "VARIANT (FOLDER)".

    Raises:
        InputError: a folder without results or with damaged ones, or folders of different benchmarks.
    """
    abouts: list[dict[str, Any]] = []
    results = None
    for folder in folders:
        about, lines = checked(folder)
        if results is None:
            results = Results(about["layout"], abouts)
        if abouts and about["digest"] != abouts[0]["digest"]:
            found, allowed = (f"{one['bench']}, sha256 {one['digest'][:16]}" for one in (about, abouts[0]))
            raise InputError("DIR", f"'{folder}' of another benchmark ({found})", allowed)
        labels = _labels(results, about, lines, _name(folder, abouts))
        abouts.append(about | {"folder": str(folder), "labels": labels, "sets": stored_sets(folder)})
        has_pictures = (folder / "pictures").is_dir()
        for line in lines:
            label = labels[line["variant"]]
            added = label.removeprefix(line["variant"])
            results.by_variant.setdefault(label, {})[line["case"]] = line | {
                "variant": label,
                "curve": line["curve"] + added,
            }
            if has_pictures:
                results.pictures[line["case"], label] = folder
    if results is None:
        raise InputError("DIR", "nothing", "folders that eval.run wrote")
    return results


def checked(folder: Path) -> tuple[dict[str, Any], list[Line]]:
    """run.json and all whole lines of a folder, of the form that they should have.

    Raises:
        InputError: no results, or damaged ones.
    """
    store = Store(folder)
    about, lines = store.about("DIR"), store.lines()
    if not about or not lines:
        raise InputError("DIR", f"'{folder}' without results", "folders that eval.run wrote")
    check_form(About, about, f"'{store.about_path}'")
    for line in lines:
        check_form(ResultLine, line, f"'{store.lines_path}', {line['variant']} of {line['case']}")
    return about, lines


def _name(folder: Path, before: Sequence[dict[str, Any]]) -> str:
    """A folder's last part, or all of it where an earlier one has the same."""
    name = folder.resolve().name
    return str(folder) if name in [Path(about["folder"]).resolve().name for about in before] else name


def _labels(results: Results, about: dict[str, Any], lines: Sequence[Line], name: str) -> dict[str, str]:
    """What a folder's variants are called beside those that were read before."""
    cases: dict[str, set[str]] = {}
    for line in lines:
        cases.setdefault(line["variant"], set()).add(line["case"])

    def joins(variant: str) -> bool:
        others = [one for one in results.abouts if variant in one["labels"].values()]
        same = all(one.get(key) == about.get(key) for one in others for key in SETTINGS)
        return same and not cases[variant] & results.by_variant.get(variant, {}).keys()

    return {variant: variant if joins(variant) else f"{variant} ({name})" for variant in cases}


def stored_sets(folder: Path) -> dict[str, Any] | None:
    """Scores of whole sets, where a run has stored them; read without the networks' packages.

    Raises:
        InputError: damaged, or of another form.
    """
    path = folder / SETS
    if not path.exists():
        return None
    found = parsed(path, json.loads, "what eval.run wrote", "DIR")
    check_form(Sets, found, f"'{path}'")
    return found
