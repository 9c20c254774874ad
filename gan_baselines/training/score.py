"""Measures during a training, and the weights that were best by them."""

import json
from pathlib import Path
from typing import Any

from gan_baselines.config import RunConfig, layout_of
from gan_baselines.data.folders import has_split
from gan_baselines.errors import InputError
from gan_baselines.evaluate import evaluate
from gan_baselines.files import replace_text
from gan_baselines.models import GanModel
from gan_baselines.weights import Weights

FILE = "metrics.jsonl"


def check_test_split(data: Path, config: RunConfig) -> None:
    """Refuse a folder without a test split: the pictures of the training say nothing of when to stop.

    Raises:
        InputError: there is none, or the model makes no pictures.
    """
    option = "--set train.evaluate_every"
    if config.model.name == "classifier":
        raise InputError(option, "a classifier, which makes no pictures", "0")
    if not has_split(data, layout_of(config.model.name), "test"):
        raise InputError(option, f"'{data}' without a test split", "0, or a folder with one")


class Scores:
    """metrics.jsonl of a run: a line each time the generators are measured on the test split. Lower KID is better.

    Opening it for a resumed run drops the lines after the checkpoint's step.
    """

    def __init__(self, out: Path, data: Path, config: RunConfig, keep_until: int) -> None:
        self.path, self.data, self.config = out / FILE, data, config
        self.lines: list[dict[str, Any]] = []
        if self.path.exists():
            known = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            self.lines = [line for line in known if line["step"] <= keep_until]
        self._write()

    @property
    def best(self) -> float:
        """The lowest KID so far."""
        return min((line["kid"] for line in self.lines), default=float("inf"))

    def add(self, model: GanModel, step: int, about: dict[str, Any]) -> bool:
        """Measure `model`; return whether it is the best so far."""
        weights = Weights(self.config.model, dict(model.generators), about, model)
        report = evaluate(weights, self.data, limit=self.config.train.evaluate_pictures)
        direction = next(iter(model.translators), None)
        values = report[direction]["model"] if direction else {"kid": report["kid"]}
        better = values["kid"] < self.best
        self.lines.append({"step": step, **values})
        self._write()
        return better

    def _write(self) -> None:
        replace_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
