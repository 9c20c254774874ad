"""DCGAN on a small set of emoji: `python -m eval.gan_noise --emoji FOLDER --out DIR`.

FOLDER is the unpacked npm package emoji-datasource-google (64 px PNG files and emoji.json; Noto Emoji, Apache-2.0).
Trains with and without augmentation, measures each after a short and after the whole training, and writes sample grids,
loss curves and `noise.json`. Kill it and start it again: it goes on.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.command import OneLineParser
from eval.files import write_text
from eval.gans.measure import judge_digest, judge_trunk
from eval.gans.training import run_training

CATEGORIES = ("Animals & Nature", "Food & Drink")
COMMON = ["model.width=32", "train.batch_size=32", "train.tracker=none"]
RUNS = {
    "plain": [],
    "augmented": ["data.flip=true", "data.load_size=72", "data.size=64", "data.rotate=10", "data.stretch=0.1"],
}
SAMPLES = 256


def make_data(package: Path, out: Path) -> None:
    """Emoji of two categories, without skin tones; every fifth is kept for the test."""
    listed = json.loads((package / "emoji.json").read_text())
    chosen = sorted(item["image"] for item in listed if item["category"] in CATEGORIES and item["has_img_google"])
    for index, name in enumerate(chosen):
        folder = out / ("test" if index % 5 == 4 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / "img" / "google" / "64" / name, folder / name)


def train(name: str, steps: int, out: Path, data: Path, settings: list[str]) -> Path:
    """Train a run up to `steps`, or go on with it; return a copy of its weights at that step, made once.

    Without decay of the learning rate a short run is the beginning of a long one.
    """
    folder, kept = out / name, out / f"{name}-{steps}"
    if kept.exists():
        return kept
    every = ["train.log_every=25", "train.checkpoint_every=300", "train.sample_every=100000"]
    until = f"train.steps={steps}"
    run_training("dcgan", data, folder, [*COMMON, *RUNS[name], *every, until, *settings], later=[until])
    return shutil.copytree(folder / "weights", kept)


def measure(weights: Path, data: Path) -> dict[str, Any]:
    """`distances` of samples to both splits, and the judge that gave the features."""
    from gan_baselines.inference import sample
    from gan_baselines.weights import load_weights

    made = torch.stack(list(sample(load_weights(weights).noise_generator, SAMPLES, 0)))
    return {**distances(made, pictures(data / "train"), pictures(data / "test")), "judge": judge_digest()}


def distances(made: Tensor, train: Tensor, test: Tensor) -> dict[str, float]:
    """KID to each split, mean L1 between `made` pictures, and mean L1 of each to the nearest training picture."""
    from gan_baselines.metrics import kid, pooled_features

    network = judge_trunk()
    features = [pooled_features(network, part) for part in (made, train, test)]
    mean, scale = features[1].mean(0), features[1].std(0).clamp_min(1e-6)
    shown, *real = [(part - mean) / scale for part in features]
    flat, seen = made.flatten(1), train.flatten(1)
    among = torch.cdist(flat, flat, p=1) / flat.shape[1]
    near = torch.cdist(flat, seen, p=1).amin(1) / flat.shape[1]
    between = float(among.sum() / (len(flat) * (len(flat) - 1)))
    return {"kid_train": kid(real[0], shown), "kid_test": kid(real[1], shown), "spread": between,
            "nearest": float(near.mean())}  # fmt: skip


def pictures(folder: Path) -> Tensor:
    """All pictures of a folder, (N, 3, 64, 64) in [-1, 1]."""
    from gan_baselines.data.pictures import read_picture, to_range, to_tensor

    return torch.stack([to_range(to_tensor(read_picture(path))) for path in sorted(folder.glob("*.png"))])


def grid(weights: Path, path: Path, side: int = 8) -> None:
    """`side` x `side` samples of seeds 0, 1, ... as one picture."""
    from gan_baselines.inference import sample
    from gan_baselines.training.run_page import save_grid
    from gan_baselines.weights import load_weights

    made = torch.stack(list(sample(load_weights(weights).noise_generator, side * side, 0)))
    save_grid(list(made.split(side)), path)


def figure(name: str, out: Path) -> None:
    """The run's losses as an SVG file."""
    from gan_baselines.training.monitor import RunLog
    from gan_baselines.training.run_page import write_figure

    log = RunLog(out / name / "losses.jsonl", sys.maxsize)
    write_figure(f"DCGAN, {name}", log.curves, out / f"{name}-losses.svg")


def main() -> None:
    """Command line."""
    parser = OneLineParser(__doc__)
    parser.add_argument("--emoji", type=Path, required=True, help="unpacked npm package emoji-datasource-google")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--short", type=int, default=300, help="steps of the short training")
    parser.add_argument("--steps", type=int, default=2400, help="steps of the whole training")
    parser.add_argument("--only", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="settings of every run, such as train.precision=bf16")
    arguments = parser.parse_args()
    if not (arguments.emoji / "emoji.json").exists():
        parser.error(f"--emoji: found '{arguments.emoji}' without emoji.json; allowed: the unpacked npm package")
    if not 1 <= arguments.short <= arguments.steps:
        parser.error(f"--short, --steps: found {arguments.short}, {arguments.steps}; allowed: 1 <= short <= steps")
    out, data = arguments.out, arguments.out / "emoji"
    if not data.exists():
        make_data(arguments.emoji, data)
    path = out / "noise.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.only:
        for steps in (arguments.short, arguments.steps):
            kept = train(name, steps, out, data, [f"train.threads={arguments.threads}", *arguments.set])
            key = f"{name}, {steps} steps"
            if results.get(key, {}).get("judge") != judge_digest():
                results[key] = measure(kept, data)
                grid(kept, out / f"{name}-{steps}.png")
                write_text(path, json.dumps(results, indent=1))
        figure(name, out)
    seen, unseen = pictures(data / "train"), pictures(data / "test")
    real = {"(training pictures)": distances(seen, seen, unseen), "(test pictures)": distances(unseen, seen, unseen)}
    columns = list(real["(test pictures)"])
    rows = [[name, *(f"{values[key]:.3f}" for key in columns)] for name, values in (real | results).items()]
    lines = [["samples", *columns], ["---"] * (1 + len(columns)), *rows]
    sys.stdout.write("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
