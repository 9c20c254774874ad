"""The papers' own tables from finished runs: `python -m eval.gan_tables --runs DIR`.

DIR is what `python -m eval.gan_runs --out DIR` wrote; tables are those of `prompts/gan_runs.yaml`. Label scores as the
label-to-photo literature has them, the discriminators' scores, and what codes do are measured here, once for each run
and judge, and kept in DIR/scores.json; published numbers stand beside.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from eval.files import PROMPTS, write_text
from eval.gans.runs import COLUMNS, MORE, RUNS, cell, finished
from eval.gans.tasks import scenes_of, task_of
from freectl.errors import InputError

PUBLISHED = PROMPTS / "published.yaml"
EVIDENCE = {"P": "read in the paper", "S": "secondary", "U": "not verified"}
TITLES = COLUMNS | MORE | {
    "per_pixel": "per-pixel", "per_class": "per-class", "class_iou": "class IoU",
    "label_per_pixel": "per-pixel", "label_per_class": "per-class", "label_class_iou": "class IoU",
    "modes": "modes reached", "d_fake": "D fake", "d_real": "D real", "h_fake": "H fake", "h_real": "H real",
    "a_fake": "D_A fake", "a_real": "D_A real", "b_fake": "D_B fake", "b_real": "D_B real",
    "iterations": "iterations/s", "information": "I(code; object), nats", "code_accuracy": "object by code",
    "one_label": "L1 between one-label maps", "words_right": "all words right",
    "caption_diversity": "L1 for one caption", "content_l1": "L1 to the content",
}  # fmt: skip
Scores = dict[str, dict[str, Any]]


def main(
    runs: Annotated[Path, typer.Option(help="Folder of finished runs, the --out of eval.gan_runs.")],
    table: Annotated[list[str] | None, typer.Option(help="Name of a table; repeatable. All of which runs are.")] = None,
    limit: Annotated[int, typer.Option(help="Test pictures at most.", min=2)] = 120,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Measure what is missing, and print the tables."""
    import torch

    torch.set_num_threads(threads)
    plan = yaml.safe_load(RUNS.read_text())
    for name in table or []:
        if name not in plan["tables"]:
            raise InputError("--table", f"'{name}'", ", ".join(plan["tables"]))
    chosen = {name: plan["tables"][name] for name in table or plan["tables"]}
    known = {kind: found for one in chosen.values() for kind in one["rows"] if (found := _seeds(runs, kind))}
    if not known:
        raise InputError(
            "--runs", f"'{runs}' without a finished run of {', '.join(chosen)}", "a folder of eval.gan_runs"
        )
    scores = measured(runs, plan, [name for names in known.values() for name in names], limit)
    values = {kind: [_values(runs, name, scores) for name in names] for kind, names in known.items()}
    papers = yaml.safe_load(PUBLISHED.read_text())
    shown = [one for name, one in chosen.items() if any(kind in known for kind in one["rows"])]
    names = [name for name in chosen if chosen[name] in shown]
    sys.stdout.write("\n".join(markdown(name, chosen[name], values, papers) for name in names))


def _seeds(runs: Path, kind: str) -> list[str]:
    folders = [runs / kind, *sorted(runs.glob(f"{kind}-seed*"))]
    return [folder.name for folder in folders if finished(folder)]


def measured(runs: Path, plan: dict[str, Any], names: list[str], limit: int) -> Scores:
    """Scores of runs by name; those that DIR/scores.json has of the same judge and number of pictures are kept."""
    from eval.gans.finished import Finished
    from eval.gans.measure import judge_digest
    from eval.gans.scored import rivals, scores_of

    path = runs / "scores.json"
    scores: Scores = json.loads(path.read_text()) if path.exists() else {}
    true: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        steps = json.loads((runs / name / "weights" / "config.json").read_text())["about"].get("steps")
        about = {"judge": judge_digest(), "limit": limit, "steps": steps}
        if {key: scores.get(name, {}).get(key) for key in about} == about:
            continue
        task = task_of(name.partition("-seed")[0], plan)
        run = Finished(runs / name, runs / "data" / task, runs / "data" / scenes_of(task), limit)
        values = scores_of(run, plan["data"]["styles"][1])
        if task not in true:
            true[task] = rivals(run) if "per_pixel" in values else {}
        scores[name] = {**about, "scores": values, "rivals": true[task]}
        write_text(path, json.dumps(scores, indent=1), "--runs")
    return scores


def _values(runs: Path, name: str, scores: Scores) -> dict[str, Any]:
    """All that is known of a run, with rivals as "baselines"."""
    from eval.gans.method import training_of

    results, speeds = (_read(runs / f"{kind}.json") for kind in ("results", "speeds"))
    found = results.get(name, {})
    if found.get("judge") != scores[name]["judge"]:
        found = {}
    cost = training_of(runs / name / "weights")
    pace = {"iterations": cost["steps"] / cost["seconds"]} if cost["seconds"] else {}
    speed = {"speed": speeds[name]} if name in speeds else {}
    rivals = {
        rival: values | scores[name]["rivals"].get(rival, {})
        for rival, values in ({"true pictures": {}} | found.get("baselines", {})).items()
    }
    return {**found, **scores[name]["scores"], **pace, **speed, "baselines": rivals}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def markdown(name: str, table: dict[str, Any], values: dict[str, list[dict[str, Any]]], papers: dict[str, Any]) -> str:
    """One table: runs that are there, then rivals, each with its published row.

    Args:
        values: of the seeds of each kind of run. papers: prompts/published.yaml.
    """
    columns, rows = table["columns"], table["rows"]
    paper, printed, about = _published(table, papers)
    head = [name, "seeds", *(TITLES[key] for key in columns), *(f"published {key}" for key in printed)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    known = {kind: values[kind] for kind in rows if kind in values}
    rivals: dict[str, list[dict[str, Any]]] = {}
    for seeds in known.values():
        for rival, found in seeds[0]["baselines"].items():
            if any(key in found for key in columns):
                rivals.setdefault(f"({rival})", [found])
    for kind, seeds in (rivals | known).items():
        cells = [cell(key, seeds) for key in columns]
        beside = paper.get(rows.get(kind)) or ["-"] * len(printed)
        count = "-" if kind in rivals else str(len(seeds))
        lines.append("| " + " | ".join([kind, count, *cells, *beside]) + " |")
    return "\n".join([*lines, *about, ""])


def _published(
    table: dict[str, Any], papers: dict[str, Any]
) -> tuple[dict[str | None, list[str]], list[str], list[str]]:
    """Rows of a paper's table by their names, its columns, and where they come from."""
    if "published" not in table:
        return {}, [], []
    entry, index = table["published"]
    columns, printed = papers[entry]["columns"], papers[entry]["tables"][index]
    rows = {
        row["method"]: [
            ("-" if value is None else f"{value:g}") + (" (U)" if key in row.get("unsure", []) else "")
            for key, value in zip(columns, row["values"], strict=True)
        ]
        for row in printed["rows"]
    }
    about = f"Published: {printed['title']}; {printed['source']}; {EVIDENCE[printed['evidence']]}."
    return rows, columns, ["", about]
