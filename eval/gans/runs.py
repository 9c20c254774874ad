"""The trained baselines' tables: `python -m eval.gan_runs --out DIR`.

Makes scenes, splits them by object, trains every run of `prompts/gan_runs.yaml` that is missing or unfinished, and
measures all of them on objects that no training picture shows. Kill it and start it again: finished runs stay, one
that was not goes on. Results of another judge are measured anew from the runs' weights. `python -m eval.gan_tables`
puts them into the papers' own tables.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from eval.command import OneLineParser
from eval.files import PROMPTS, write_text
from eval.gans.maps import PHOTOS
from eval.gans.tasks import OF_SCENES, make_data, scenes_of, task_of
from eval.gans.training import run_training

RUNS = PROMPTS / "gan_runs.yaml"
SPEED_GROUP = "norms"
SPEED_ALSO = "l1-cgan"  # the group's batch norm at batch 4
SPEED_ROUNDS = 10
COLUMNS = {
    "l1": "L1 to the true picture",
    "kid": "KID",
    "cycle_l1": "cycle L1",
    "style": "style right, %",
    "object": "object right, %",
    "speed": "pictures/CPU s",
}
MORE = {"best_l1": "L1 of the best answer", "diversity": "L1 between answers", "coverage": "true answers met"}


def settings_of(name: str, plan: dict[str, Any], out: Path, seed: int, factor: float) -> list[str]:
    """`key=value` settings of a run, its steps worked out from `factor` times the pictures it may see.

    bfloat16, which the plan asks for as the faster one, is left out where the CPU does not multiply it.
    """
    from gan_baselines.training.device import native_bf16

    model, _, own, *pictures = plan["runs"][name]
    sets = [*plan["common"][model], *(text.format(out=out, seed=_suffix(seed)) for text in own), f"train.seed={seed}"]
    sets = [text for text in sets if text != "train.precision=bf16" or native_bf16()]
    batch = next((int(text.partition("=")[2]) for text in reversed(sets) if text.startswith("train.batch_size=")), 1)
    steps = max(1, round(factor * (pictures[0] if pictures else plan["pictures"][model])) // batch)
    every = max(1, steps // 8)
    return [*sets, f"train.steps={steps}", f"train.checkpoint_every={every}", f"train.sample_every={steps}",
            f"train.log_every={max(1, steps // 40)}"]  # fmt: skip


def with_sources(names: list[str], plan: dict[str, Any]) -> list[str]:
    """`names`, each behind the runs whose weights it starts from."""
    found: dict[str, None] = {}
    for name in names:
        texts = [text.partition("{out}/")[2] for text in plan["runs"][name][2]]
        found |= dict.fromkeys(with_sources([text.partition("{seed}")[0] for text in texts if text], plan))
        found[name] = None
    return list(found)


def finished(folder: Path) -> bool:
    """Whether the weights come from the last step that the run's own record asks for."""
    record, weights = folder / "run.json", folder / "weights" / "config.json"
    if not (record.exists() and weights.exists()):
        return False
    wanted = json.loads(record.read_text())["config"]["train"]["steps"]
    return json.loads(weights.read_text())["about"].get("steps") == wanted


def run_name(name: str, seed: int) -> str:
    """Folder of a run; seed 0 has the plain name."""
    return name + _suffix(seed)


def _suffix(seed: int) -> str:
    return f"-seed{seed}" if seed else ""


def table(results: dict[str, dict[str, Any]], plan: dict[str, Any], speeds: dict[str, float] | None = None) -> str:
    """Markdown, one block a group, one row a kind of run; identity and the mean picture come first.

    Where a run was trained with several seeds, cells are mean and standard deviation over them.
    """
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, values in results.items():
        kinds.setdefault(name.partition("-seed")[0], []).append(values)
    groups: dict[str, list[str]] = {}
    for kind in (kind for kind in plan["runs"] if kind in kinds):
        groups.setdefault(plan["runs"][kind][1], []).append(kind)
    lines = []
    for group, names in groups.items():
        more = {key: title for key, title in MORE.items() if any(key in one for name in names for one in kinds[name])}
        columns = COLUMNS | more
        lines += [f"| {group} | seeds | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
        for rival, values in kinds[names[0]][0]["baselines"].items():
            lines.append(_row(f"({rival})", [values], "-", columns))
        for name in names:
            speed = {"speed": speeds[name]} if speeds and name in speeds else {}
            known = [values | speed for values in kinds[name]]
            lines.append(_row(name, known, str(len(known)), columns))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, seeds: list[dict[str, Any]], count: str, columns: dict[str, str]) -> str:
    cells = [count]
    for key in columns:
        cells.append(cell(key, seeds))
    return f"| {name} | " + " | ".join(cells) + " |"


def cell(key: str, seeds: list[dict[str, Any]]) -> str:
    """A measure's mean over the seeds that have it, with the deviation where there are several."""
    values = [value for one in seeds if (value := one.get(key)) is not None]
    digits = 1 if key in ("style", "object", "speed", "kid") else 3
    text = f"{statistics.fmean(values):.{digits}f}" if values else "-"
    if len(values) > 1 and key != "speed":
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def measured_elsewhere(model: str, task: str) -> bool:
    """Runs that the table of all has no columns for: feature networks, painted maps, and what needs a style picture."""
    return model in ("classifier", "adain") or task.startswith(PHOTOS)


def _parsed(plan: dict[str, Any]) -> argparse.Namespace:
    parser = OneLineParser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of data, runs and results.json")
    parser.add_argument("--only", nargs="*", default=list(plan["runs"]), help="names of runs; default all")
    groups = sorted({run[1] for run in plan["runs"].values()})
    parser.add_argument("--groups", nargs="*", default=[], choices=groups, help="instead: all runs of these groups")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, with seeds 0, 1, ...")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factor", type=float, default=1.0, help="budget of every run, times the plan's")
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run, such as train.precision=fp32")
    parser.add_argument("--phase", choices=["train", "measure", "both"], default="both",
                        help="measure: only runs that are trained already")  # fmt: skip
    parser.add_argument("--speeds", action="store_true", help=f"also time the training of the group '{SPEED_GROUP}'")
    arguments = parser.parse_args()
    if arguments.groups:
        arguments.only = [name for name, run in plan["runs"].items() if run[1] in arguments.groups]
    if unknown := [name for name in arguments.only if name not in plan["runs"]]:
        parser.error(f"--only: found {', '.join(unknown)}; allowed: {', '.join(plan['runs'])}")
    arguments.only = with_sources(arguments.only, plan)
    if arguments.seeds < 1 or arguments.threads < 1 or arguments.factor <= 0:
        parser.error("--seeds, --threads, --factor: allowed are numbers above 0")
    return arguments


def _timed(arguments: argparse.Namespace, plan: dict[str, Any]) -> dict[str, float]:
    """Training speeds of the group's runs, measured once for an output folder."""
    from eval.gans.measure import speeds
    from gan_baselines.settings import resolve

    path = arguments.out / "speeds.json"
    if arguments.speeds:
        names = [name for name, run in plan["runs"].items() if run[1] == SPEED_GROUP or name == SPEED_ALSO]
        configs = {
            name: resolve(plan["runs"][name][0], None, settings_of(name, plan, arguments.out, 0, 1.0)) for name in names
        }
        write_text(path, json.dumps(speeds(configs, SPEED_ROUNDS), indent=1))
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    """Command line."""
    plan = yaml.safe_load(RUNS.read_text())
    arguments = _parsed(plan)

    import torch

    from eval.gans.measure import judge_digest, measure
    from eval.gans.sampled import measure_drawn

    torch.set_num_threads(arguments.threads)
    folders = make_data(arguments.out, plan, {task_of(name, plan) for name in arguments.only})
    path = arguments.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            key, (model, group, *_), task = run_name(name, seed), plan["runs"][name], task_of(name, plan)
            folder, data = arguments.out / key, folders[task]
            if arguments.phase != "measure":
                own = settings_of(name, plan, arguments.out, seed, arguments.factor)
                more = [f"train.threads={arguments.threads}", "train.tracker=none", *arguments.set]
                if not finished(folder):  # a run is trained in a process of its own, or goes on
                    run_training(model, data, folder, own + more)
            stale = results.get(key, {}).get("judge") != judge_digest()
            if arguments.phase != "train" and finished(folder) and stale:
                scenes, samples = data.parent / scenes_of(task), plan.get("samples", {}).get(group, 1)
                ask = measure_drawn if task in OF_SCENES else measure
                if not measured_elsewhere(model, task):
                    results[key] = ask(folder, data, scenes, plan["data"]["styles"][1], samples)
                write_text(path, json.dumps(results, indent=1))
    same = {key: values for key, values in results.items() if values.get("judge") == judge_digest()}
    sys.stdout.write(table(same, plan, _timed(arguments, plan)) + "\n")
