"""Measures what a results folder holds: its sets of pictures, and all its pictures once more."""

import json
import sys
from typing import Any

from eval.bench.cases import Bench, Layout
from eval.files import read_picture
from eval.results.store import SETS, Store
from eval.run.workshop import scored_part
from eval.scores import scoring, set_scores
from freectl.errors import FreectlError, InputError


def write_sets(store: Store, layout: Layout, clip: str | None = None) -> dict[str, Any]:
    """Compute the scores of whole sets and store them; returns what was stored.

    Raises:
        FreectlError: the folder is not writable.
    """
    found = set_scores.compute(store.folder, store.lines(), layout, clip)
    store.write_text(SETS, json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def again(store: Store, bench: Bench, device: str = "auto", clip: str | None = None) -> None:
    """Measure all stored pictures once more, e.g. when a network has become available.

    Raises:
        InputError: no results, or those of another benchmark.
        FreectlError: a network that the stored scores come from is missing now: its scores would be lost.
    """
    if store.about().get("digest") != bench.digest:  # before the lock, which would make the folder
        raise InputError("--out", f"'{store.folder}' without results of this benchmark", "a folder of its results")
    with store.locked():
        scorer = scoring.scorer_for(bench.layout, device, clip)
        lines = store.lines()
        if lost := {name for line in lines for name in line["networks"]} - set(scorer.networks):
            raise FreectlError(f"--rescore: would lose scores of {', '.join(sorted(lost))}. {' '.join(scorer.notes)}")
        for line in lines:
            picture = read_picture(store.folder / line["picture"])
            line.update(scored_part(scorer(bench[line["case"]], picture), scorer))
        store.rewrite(lines)
        write_sets(store, bench.layout, clip)
    sys.stdout.write(f"{len(lines)} results measured again\n")
