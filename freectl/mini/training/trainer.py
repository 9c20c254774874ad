"""One trainer for every part of the embedded model: seeded, resumable after kill -9, with EMA, loss log and sheets.

A step's data and noise are functions of (seed, step) alone, so the state to keep is the networks, their EMA and the
optimiser; a run that was killed repeats at most the steps since its last checkpoint.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from freectl.errors import InputError
from freectl.mini.training.optimizers import make_optimizers
from freectl.mini.training.state import load_state, read_facts, save_state
from freectl.mini.training.stopping import StoppedError, caught_signals

MAY_CHANGE = ("pictures", "bf16", "checkpoint_seconds", "sheet_steps", "log_steps")
"""Settings that a resumed run may be given anew: its length, and what depends on the machine or is only shown."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Attributes:
        pictures: pictures seen in all; the cosine decay ends there.
        batch: pictures a step.
        learning_rate: peak, after `warmup` steps.
        ema_decay: ceiling of the EMA decay; it grows as (1 + step) / (10 + step).
        muon: the part's matrices by `Muon`, everything else by AdamW.
        bf16: autocast to bfloat16: 1.7 times the speed on a CPU with AVX-512 BF16, a quarter of it on one without.
        checkpoint_seconds, sheet_steps, log_steps: how often state, sample sheet and loss are written.
    """

    pictures: int
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.01
    ema_decay: float = 0.9995
    seed: int = 0
    muon: bool = False
    bf16: bool = True
    checkpoint_seconds: float = 180.0
    sheet_steps: int = 2000
    log_steps: int = 50

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.pictures // self.batch)

    def rate(self, step: int) -> float:
        """Learning rate of one step: linear warm-up, cosine decay to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class Part(Protocol):
    """What the trainer needs to know of a part."""

    name: str

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The networks that are trained, by name."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Plain values that shape networks and loss; a run is resumed with the same ones only."""

    def matrices(self) -> Iterable[str]:
        """The parameters, as "module.name", that Muon takes where it is asked for."""

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished model folder in place of random ones."""

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Named terms of one step; "loss" is minimised."""

    def sheet(self) -> Image.Image:
        """A picture that shows where the part stands."""

    def export(self, folder: Path) -> None:
        """Write the finished weights."""


class Trainer:
    """Runs one part to its end, or until stopped; call again to go on.

    Args:
        part: networks and loss.
        config: see `TrainConfig`.
        folder: where state, log and sheets live; nothing in it is pickled.

    Raises:
        InputError: the folder holds a run of other settings.
    """

    def __init__(self, part: Part, config: TrainConfig, folder: Path) -> None:
        self.part, self.config, self.folder = part, config, folder
        self.parameters = {
            f"{module}.{name}": parameter
            for module, network in part.modules.items()
            for name, parameter in network.named_parameters()
        }
        matrices = part.matrices() if config.muon else ()
        self.optimizers = make_optimizers(self.parameters, matrices, config.learning_rate, config.weight_decay)
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.step, self.seconds = 0, 0.0
        self._resume()

    def run(self) -> None:
        """Train to the configured end, then leave the EMA weights in the networks.

        Raises:
            InputError: another process trains in the folder.
            StoppedError: by SIGINT or SIGTERM, after the step and with a checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.folder / ".lock").acquire(timeout=0)
        except Timeout:
            found = f"'{self.folder}', where another training runs"
            raise InputError("--out", found, "one training a folder") from None
        with lock:
            self._resume()  # what the holder of the lock may have written since
            self._trim_log()
            with caught_signals() as signals:
                self._loop(signals)
            self.save()
            self._write_sheet()
            self.use_ema()

    def _loop(self, signals: list[int]) -> None:
        saved, before = time.monotonic(), self.seconds
        with tqdm(total=self.config.steps, initial=self.step, desc=self.part.name, unit="step") as bar:
            while self.step < self.config.steps:
                terms = self._train_step()
                bar.update()
                self.seconds = before + bar.format_dict["elapsed"]
                if self.step % self.config.log_steps == 0:
                    self._log(terms, bar)
                if signals:
                    self.save()
                    told = f"stopped after step {self.step}; the same command goes on from '{self.folder}'"
                    raise StoppedError(signals[0], told)
                if self.step % self.config.sheet_steps == 0:
                    self._write_sheet()
                if time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()

    def _train_step(self) -> dict[str, Tensor]:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.rate(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            terms = self.part.losses(self.config.seed, self.step, self.config.batch)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - decay)
        return terms

    def use_ema(self) -> None:
        """Copy the EMA weights into the networks."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.ema[name])

    def save(self) -> None:
        """Write the state; a kill leaves the old one or the new one."""
        facts = {"step": self.step, "seconds": round(self.seconds, 1), "run": self._facts()}
        save_state(self.folder, self.parameters, self.ema, self.optimizers, facts)

    def _facts(self) -> dict[str, Any]:
        """What must be the same when a run goes on."""
        config = {name: value for name, value in asdict(self.config).items() if name not in MAY_CHANGE}
        # through JSON, as they are read back
        return json.loads(json.dumps(config | dict(self.part.facts)))

    def _resume(self) -> None:
        """Go on from the folder's state, where there is one."""
        facts = read_facts(self.folder)
        if facts is None or facts["step"] <= self.step:
            return
        for name, value in self._facts().items():
            if (before := facts.get("run", {}).get(name)) != value:
                found = f"{name} {value} for the run in '{self.folder}'"
                raise InputError(_option(name), found, f"{before}, with which it began, or another --out")
        load_state(self.folder, self.parameters, self.ema, self.optimizers)
        self.step, self.seconds = facts["step"], facts["seconds"]

    def _trim_log(self) -> None:
        """Drop the lines of steps after the last checkpoint, which are trained again."""
        log = self.folder / "log.jsonl"
        if log.exists():
            lines = log.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
            if kept != lines:
                log.write_text("".join(kept))

    def _log(self, terms: dict[str, Tensor], bar: tqdm) -> None:
        values = {name: round(float(value.detach()), 6) for name, value in terms.items()}
        bar.set_postfix(loss=values["loss"])
        line = {"step": self.step, "lr": self.config.rate(self.step), "seconds": round(self.seconds, 1)}
        with open(self.folder / "log.jsonl", "a") as log:
            log.write(json.dumps(line | values) + "\n")

    def _write_sheet(self) -> None:
        """Draw the sheet with the EMA weights, then go on with the trained ones."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.use_ema()
        (self.folder / "sheets").mkdir(exist_ok=True)
        with torch.compiler.set_stance("force_eager"):  # other shapes than a step's, seldom
            self.part.sheet().save(self.folder / "sheets" / f"{self.step:07d}.png")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])


def _option(name: str) -> str:
    """The option of `freectl mini train` that sets a value of the run; `--out` for what no option sets."""
    return f"--{name.replace('_', '-')}" if name in ("batch", "learning_rate", "seed") else "--out"
