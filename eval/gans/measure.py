"""What a run of the trained baselines is worth: distances, what the judge sees, and seconds a picture.

Every result names the judge that measured it, so that rows of different judges never stand in one table.
"""

import hashlib
import json
import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TEST_LIMIT = 120
GRID_ROWS = 6


def judge_trunk() -> Any:
    """The judge's convolutions: a network trained on other pictures of the same kind."""
    return torch.nn.Sequential(*_judge().stages)


@cache
def judge_digest() -> str:
    """Which judge measures: the beginning of its file's sha256."""
    from freectl.mini import MODEL_DIR

    return hashlib.sha256((MODEL_DIR / "judge" / "model.safetensors").read_bytes()).hexdigest()[:12]


@cache
def _judge() -> Any:
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge

    return load_judge(MODEL_DIR / "judge")


def measure(folder: Path, data: Path, scenes: Path, target: str, samples: int = 1) -> dict[str, Any]:
    """Distances of the run's A to B generator on the test split, and what the judge sees in its pictures.

    `target` is the style that B is drawn in; several `samples` a picture add diversity and coverage. `scenes`
    holds the scenes.jsonl that names the objects. Writes folder/test.png: input, translation, true picture.
    """
    from gan_baselines.evaluate import evaluate
    from gan_baselines.inference import translate
    from gan_baselines.training.run_page import save_grid
    from gan_baselines.weights import load_weights

    weights = load_weights(folder / "weights")
    direction = evaluate(weights, data, limit=TEST_LIMIT, network=judge_trunk(), only="AB", samples=samples)["AB"]
    files = sorted(side_folder(data, "test", "A").glob("*.png"))[:TEST_LIMIT]
    sources, true = [read_tensor(path) for path in files], side_folder(data, "test", "B")
    objects = objects_of(scenes / "scenes.jsonl")
    wanted = [objects[path.name] for path in files]
    dropout = getattr(getattr(weights.model, "generator", None), "dropout", False)
    made = [translate(weights.translators["AB"], p, weights.multiple, dropout=dropout) for p in sources]
    shown = range(0, len(files), max(1, len(files) // GRID_ROWS))
    rows = [(sources[i], made[i], read_tensor(true / files[i].name)) for i in shown]
    save_grid([torch.stack(column) for column in zip(*rows, strict=True)], folder / "test.png")
    mean = _mean(side_folder(data, "train", "B"))
    return {
        **direction["model"],
        **judged(made, wanted, target),
        "judge": judge_digest(),
        "baselines": {
            "identity": direction["identity"] | judged(sources, wanted, target),
            "mean": direction["mean"] | judged([mean] * len(sources), wanted, target),
        },
    }


def verdicts_of(pictures: list[Tensor]) -> list[Any]:
    """What the judge sees in each picture (3, H, W) in [-1, 1]."""
    from freectl.mini.judge import judge_pictures
    from gan_baselines.data.pictures import to_image

    return judge_pictures(_judge(), [to_image(picture) for picture in pictures])


def judged(pictures: list[Tensor], objects: list[str], target: str) -> dict[str, float]:
    """Percent of pictures in which the judge sees the style `target`, and the source's object."""
    verdicts = verdicts_of(pictures)
    style = sum(v.labels["style"] == target for v in verdicts)
    same = sum(v.labels["object"] == name for v, name in zip(verdicts, objects, strict=True))
    return {"style": 100 * style / len(verdicts), "object": 100 * same / len(verdicts)}


def speeds(configs: dict[str, Any], rounds: int, size: int = 64) -> dict[str, float]:
    """Pictures a CPU second that training goes through, by run: median over `rounds`, in which all runs take turns.

    CPU time, not the clock's, so that another job on the machine matters little; picture files are left out.
    """
    from accelerate import Accelerator

    from gan_baselines.benchmark.__main__ import Fixed
    from gan_baselines.models import build
    from gan_baselines.training.trainer import Trainer
    from gan_baselines.weights import without_sources

    trainers = {}
    for name, config in configs.items():
        network, pictures = build(without_sources(config.model)), Fixed(config, size)
        precision = "bf16" if config.train.precision == "bf16" else "no"
        trainers[name] = Trainer(network, pictures, config, Accelerator(cpu=True, mixed_precision=precision))  # type: ignore[arg-type]
    spent: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(rounds + 1):
        for name, trainer in trainers.items():
            started = time.process_time()
            trainer.advance()
            if turn:  # the first round pays for allocations
                spent[name].append(time.process_time() - started)
    return {name: configs[name].train.batch_size / statistics.median(times) for name, times in spent.items()}


def side_folder(data: Path, split: str, side: str) -> Path:
    """Folder of one side, in either layout."""
    beside = data / f"{split}{side}"
    return beside if beside.exists() else data / split / side


def read_tensor(path: Path) -> Tensor:
    """A picture as (3, H, W), -1 to 1."""
    from gan_baselines.data.pictures import read_picture, to_range, to_tensor

    return to_range(to_tensor(read_picture(path)))


@cache
def _mean(folder: Path) -> Tensor:
    seen = sorted(folder.glob("*.png"))
    return sum((read_tensor(path) for path in seen), torch.zeros(())) / len(seen)


@cache
def objects_of(scenes: Path) -> dict[str, str]:
    """Each picture's object by its name, of a scenes.jsonl."""
    lines = [json.loads(line) for line in scenes.read_text().splitlines()]
    return {Path(line["picture"]).name: line["object"] for line in lines}
