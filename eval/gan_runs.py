"""The trained baselines' tables: `python -m eval.gan_runs --out DIR`.

Makes scenes, splits them by object, trains every run of `prompts/gan_runs.yaml` that is missing or unfinished, and
measures all of them on objects that no training picture shows. Kill it and start it again: finished runs stay.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

RUNS = Path(__file__).parent.parent / "prompts" / "gan_runs.yaml"
TEST_LIMIT = 120
GRID_ROWS = 6
COLUMNS = {
    "l1": "L1 to the true picture",
    "kid": "KID",
    "cycle_l1": "cycle L1",
    "style": "style right, %",
    "object": "object right, %",
    "pictures_per_second": "pictures/s",
}


def make_data(out: Path, plan: dict[str, Any]) -> dict[str, Path]:
    """Folders of paired and unpaired pictures; made once."""
    from freectl.mini.export import write_scenes
    from gan_baselines.data.prepare import from_scenes

    folders = {"paired": out / "data" / "paired", "unpaired": out / "data" / "unpaired"}
    scenes = out / "data" / "scenes"
    if not scenes.exists():
        write_scenes(scenes, plan["scenes"], plan["seed"], styles=tuple(plan["styles"]), layout="paired")
    for layout, folder in folders.items():
        if not folder.exists():
            from_scenes(scenes, folder, layout, test_objects=plan["test_objects"])  # type: ignore[arg-type]
    return folders


def settings_of(name: str, plan: dict[str, Any], out: Path, seed: int, factor: float) -> list[str]:
    """`key=value` settings of a run, its steps worked out from `factor` times the pictures it may see."""
    model, _, own, *pictures = plan["runs"][name]
    sets = [*plan["common"][model], *(text.format(out=out) for text in own), f"train.seed={seed}"]
    batch = next((int(text.partition("=")[2]) for text in reversed(sets) if text.startswith("train.batch_size=")), 1)
    steps = max(1, round(factor * (pictures[0] if pictures else plan["pictures"][model])) // batch)
    every = max(1, steps // 8)
    return [*sets, f"train.steps={steps}", f"train.checkpoint_every={every}", f"train.sample_every={steps}",
            f"train.log_every={max(1, steps // 40)}"]  # fmt: skip


def train(folder: Path, data: Path, model: str, settings: list[str]) -> None:
    """Train one run in a process of its own, or go on with it."""
    command = [sys.executable, "-m", "gan_baselines", "train", model]
    command += ["--data", str(data), "--out", str(folder)]
    if (folder / "run.json").exists():
        command.append("--resume")
    else:
        command += [part for text in settings for part in ("--set", text)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_name(name: str, seed: int) -> str:
    """Folder of a run; seed 0 has the plain name."""
    return name if seed == 0 else f"{name}-seed{seed}"


def measure(folder: Path, data: Path) -> dict[str, Any]:
    """Distances of the run's A to B generator on the test split, and what the judge sees in its pictures."""
    from eval.gan_noise import judge_trunk
    from gan_baselines.evaluate import evaluate
    from gan_baselines.training.run_page import save_grid
    from gan_baselines.weights import load_weights

    weights = load_weights(folder / "weights")
    direction = evaluate(weights, data, limit=TEST_LIMIT, network=judge_trunk())["AB"]
    files = sorted(_side(data, "test", "A").glob("*.png"))[:TEST_LIMIT]
    sources = [_tensor(path) for path in files]
    seen = list(_side(data, "train", "B").glob("*.png"))
    mean = sum(_tensor(path) for path in seen) / len(seen)
    lines = [json.loads(line) for line in (data.parent / "scenes" / "scenes.jsonl").read_text().splitlines()]
    by_name = {Path(line["picture"]).name: line["object"] for line in lines}
    objects = [by_name[path.name] for path in files]
    made = _translated(weights, sources)
    shown = range(0, len(files), max(1, len(files) // GRID_ROWS))
    rows = [(sources[i], made[i], _tensor(_side(data, "test", "B") / files[i].name)) for i in shown]
    save_grid([torch.stack(column) for column in zip(*rows, strict=True)], folder / "test.png")
    log = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    speeds = sorted(line["pictures_per_second"] for line in log if line.get("pictures_per_second"))
    return {
        **direction["model"],
        **judged(made, objects),
        "pictures_per_second": speeds[len(speeds) // 2] if speeds else None,
        "baselines": {
            "identity": direction["identity"] | judged(sources, objects),
            "mean": direction["mean"] | judged([mean] * len(sources), objects),
        },
    }


def _side(data: Path, split: str, side: str) -> Path:
    """Folder of one side, in either layout."""
    beside = data / f"{split}{side}"
    return beside if beside.exists() else data / split / side


def _tensor(path: Path) -> Any:
    """A picture as (3, H, W), -1 to 1."""
    from PIL import Image

    from freectl.mini.training.data import to_tensor

    with Image.open(path) as picture:
        return to_tensor([picture.convert("RGB")])[0]


def _translated(weights: Any, pictures: list[Any]) -> list[Any]:
    from gan_baselines.inference import translate

    dropout = getattr(weights.model.generator, "dropout", False)
    return [translate(weights.generators["AB"], p, weights.multiple, dropout=dropout) for p in pictures]


def judged(pictures: list[Any], objects: list[str]) -> dict[str, float]:
    """Percent of pictures in which the judge sees the target style, and the source's object."""
    from PIL import Image

    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import judge_pictures, load_judge

    arrays = [((p.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy() for p in pictures]
    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), [Image.fromarray(array) for array in arrays])
    target = yaml.safe_load(RUNS.read_text())["data"]["styles"][1]
    style = sum(v.labels["style"] == target for v in verdicts)
    same = sum(v.labels["object"] == name for v, name in zip(verdicts, objects, strict=True))
    return {"style": 100 * style / len(verdicts), "object": 100 * same / len(verdicts)}


def table(results: dict[str, dict[str, Any]], plan: dict[str, Any]) -> str:
    """Markdown, one block a group; identity and the mean picture come first."""
    lines = []
    groups: dict[str, list[str]] = {}
    for name in results:
        groups.setdefault(plan["runs"][name.partition("-seed")[0]][1], []).append(name)
    for group, names in groups.items():
        lines += [f"| {group} | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for rival, values in results[names[0]]["baselines"].items():
            lines.append(_row(f"({rival})", values))
        lines += [_row(name, results[name]) for name in names] + [""]
    return "\n".join(lines)


def _row(name: str, values: dict[str, Any]) -> str:
    cells = []
    for key in COLUMNS:
        value = values.get(key)
        digits = 1 if key in ("style", "object", "pictures_per_second") else 3
        cells.append("-" if value is None else f"{value:.{digits}f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data, runs and results.json")
    parser.add_argument("--only", nargs="*", help="names of runs; default all")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, with seeds 0, 1, ...")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factor", type=float, default=1.0, help="budget of every run, times the plan's")
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run, such as train.precision=fp32")
    arguments = parser.parse_args()
    plan = yaml.safe_load(RUNS.read_text())
    names = arguments.only or list(plan["runs"])
    if unknown := [name for name in names if name not in plan["runs"]]:
        parser.error(f"--only: {', '.join(unknown)}; allowed: {', '.join(plan['runs'])}")
    folders = make_data(arguments.out, plan["data"])
    path = arguments.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for seed in range(arguments.seeds):
        for name in names:
            data = folders["paired" if plan["runs"][name][0] == "pix2pix" else "unpaired"]
            if run_name(name, seed) not in results:
                folder = arguments.out / run_name(name, seed)
                own = settings_of(name, plan, arguments.out, seed, arguments.factor)
                more = [f"train.threads={arguments.threads}", "train.tracker=none", *arguments.set]
                train(folder, data, plan["runs"][name][0], own + more)
                results[run_name(name, seed)] = measure(folder, data)
                path.write_text(json.dumps(results, indent=1))
    sys.stdout.write(table(results, plan) + "\n")


if __name__ == "__main__":
    main()
