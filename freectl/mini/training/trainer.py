"""One trainer for every part of the embedded model: seeded, resumable after kill -9, with EMA, loss log and sheets.

A step's data and noise are functions of (seed, step) alone, so the state to keep is the networks, their EMA and the
optimiser; a run that was killed repeats at most the steps since its last checkpoint.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Attributes:
        pictures: pictures seen in all; the cosine decay ends there.
        batch: pictures a step.
        learning_rate: peak, after `warmup` steps.
        ema_decay: ceiling of the EMA decay; it grows as (1 + step) / (10 + step).
        muon: the matrices of transformer blocks by Muon, orthogonalised momentum at AdamW's step length (Jordan et al.
            2024; Liu et al. 2025), everything else by AdamW.
        bf16: autocast to bfloat16 (1.7 times the speed on a CPU with AVX-512 BF16).
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

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished model folder in place of random ones."""

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        """Named terms of one step; "loss" is minimised."""

    def sheet(self) -> Image.Image:
        """A picture that shows where the part stands."""

    def export(self, folder: Path) -> None:
        """Write the finished weights."""


class Trainer:
    """Runs one part to its end, or until killed; call again to go on.

    Args:
        part: networks and loss.
        config: see `TrainConfig`.
        folder: where state, log and sheets live; nothing in it is pickled.
    """

    def __init__(self, part: Part, config: TrainConfig, folder: Path) -> None:
        self.part, self.config, self.folder = part, config, folder
        self.parameters = {
            f"{module}.{name}": parameter
            for module, network in part.modules.items()
            for name, parameter in network.named_parameters()
        }
        self.optimizers = _optimizers(self.parameters, config)
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.step = 0
        if (folder / "state.safetensors").exists():
            self._load()

    def run(self) -> None:
        """Train to the configured end, then leave the EMA weights in the networks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = time.monotonic()
        bar = tqdm(total=self.config.steps, initial=self.step, desc=self.part.name, unit="step")
        while self.step < self.config.steps:
            terms = self._train_step()
            bar.update()
            if self.step % self.config.log_steps == 0:
                self._log(terms, bar)
            if self.step % self.config.sheet_steps == 0:
                self._write_sheet()
            if time.monotonic() - saved > self.config.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
        bar.close()
        self.save()
        self._write_sheet()
        self.use_ema()

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
        """Write the state under a temporary name, then rename: a kill leaves the old state or the new one."""
        tensors = {f"model/{k}": v.detach() for k, v in self.parameters.items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.items()}
        first = 0
        for optimizer in self.optimizers:
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{first + index}/{name}": value for name, value in state.items()}
            first += sum(len(group["params"]) for group in optimizer.param_groups)
        temporary = self.folder / "state.tmp"
        save_file(
            {k: v.clone().contiguous() for k, v in tensors.items()},
            temporary,
            {"step": str(self.step), "config": json.dumps(asdict(self.config))},
        )
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / "state.safetensors")

    def _load(self) -> None:
        path = self.folder / "state.safetensors"
        tensors = load_file(path)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"model/{name}"])
                self.ema[name].copy_(tensors[f"ema/{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        first = 0
        for optimizer in self.optimizers:
            groups = optimizer.state_dict()["param_groups"]
            count = sum(len(group["params"]) for group in groups)
            own = {place: state[first + place] for place in range(count) if first + place in state}
            optimizer.load_state_dict({"state": own, "param_groups": groups})
            first += count
        with safe_open(path, framework="pt") as file:
            self.step = int(file.metadata()["step"])

    def _log(self, terms: dict[str, Tensor], bar: tqdm) -> None:
        values = {name: round(float(value.detach()), 6) for name, value in terms.items()}
        bar.set_postfix(loss=values["loss"])
        line = {"step": self.step, "lr": self.config.rate(self.step), "seconds": round(bar.format_dict["elapsed"], 1)}
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


def _optimizers(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, before it Muon where asked for; the state file numbers their parameters in this order."""
    hidden = [p for name, p in parameters.items() if config.muon and p.ndim == 2 and "resblocks" in name]
    taken = {id(p) for p in hidden}
    rest = [p for p in parameters.values() if id(p) not in taken]
    rate, decay = config.learning_rate, config.weight_decay
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if rest:
        found.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=decay, fused=True))
    return found
