"""A training run from its folder's point of view: checks, start or resume, loop, results."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from gan_baselines.config import LEAST_SIDE, RunConfig, Train, layout_of
from gan_baselines.data.batches import Batches
from gan_baselines.data.sets import check_side
from gan_baselines.errors import DivergedError, InputError
from gan_baselines.files import check_new, replace_text
from gan_baselines.inference import presenting
from gan_baselines.models import build
from gan_baselines.settings import checked, override, resolve
from gan_baselines.training import run_page, state
from gan_baselines.training.device import check_precision, set_threads
from gan_baselines.training.monitor import RunLog, choose_tracker, say
from gan_baselines.training.trainer import Trainer, pictures_per_second
from gan_baselines.weights import save_weights, without_sources

GRID_ROWS = 6
# what a resumed run may change: none of it alters a step's arithmetic except the length, which sets the schedules
FREE = ("epochs", "decay_epochs", "steps", "log_every", "sample_every", "checkpoint_every", "keep_checkpoints",
        "tracker", "threads")  # fmt: skip


def train(
    model: str, data: Path, out: Path, *, file: Path | None = None, sets: Sequence[str] = (), resume: bool = False
) -> dict[str, Any]:
    """Train `model` on the folder `data` into the folder `out`; return what happened as JSON-ready values.

    Raises:
        InputError: settings, pictures or folder do not fit; found before anything is written.
        DivergedError: a loss was not finite; the last good checkpoint is kept.
    """
    config = _stored_config(model, out, file, sets) if resume else resolve(model, file, sets)
    if not resume:
        check_new(out, allowed="a new folder, or --resume to go on with its run")
    return Run(config, data, out, resume).go()


class Run:
    """One run: `go` trains to the end."""

    def __init__(self, config: RunConfig, data: Path, out: Path, resume: bool) -> None:
        self.config, self.out = config, out
        check_precision(config.train.precision, config.train.cpu)
        tracker = choose_tracker(config.train.tracker)
        self.batches = Batches(data, config, layout_of(config.model.name))
        check_sizes(config.model, self.batches.size)
        self.threads = set_threads(config.train.threads)
        torch.manual_seed(config.train.seed)
        begun = resume and bool(state.checkpoints(out / "checkpoints"))
        network = build(without_sources(config.model) if begun else config.model)
        self.batches.load()  # last, since it takes longest: sizes and settings are known to fit
        self.accelerator = _accelerator(config.train, tracker, out)
        torch.set_num_threads(self.threads)
        torch.manual_seed(config.train.seed + 7919 * self.accelerator.process_index)
        self.trainer = Trainer(network, self.batches, config, self.accelerator)
        self.main = self.accelerator.is_main_process
        if resume:
            self._restore()
        if self.main:
            (out / "samples").mkdir(parents=True, exist_ok=True)
            self._write_settings()
            self.log = RunLog(out / "losses.jsonl", self.trainer.step)
        if tracker:
            self.accelerator.init_trackers(config.model.name)
        self.tracking = bool(tracker)
        self.last_losses: dict[str, float] = {}

    def go(self) -> dict[str, Any]:
        """Train to the last step."""
        trainer, every = self.trainer, self.config.train
        started, first = time.perf_counter(), trainer.step
        self.since, self.since_step = started, first
        if first == trainer.total and self.main:
            self._save_weights()  # a run killed right after its last checkpoint has none of that step yet
        try:
            while trainer.step < trainer.total:
                trainer.advance()
                last = trainer.step == trainer.total
                if last or trainer.step % every.log_every == 0:
                    self._report()
                if last or trainer.step % every.sample_every == 0:
                    self._sample()
                if last or trainer.step % every.checkpoint_every == 0:
                    self._checkpoint()
        except DivergedError as error:
            good = state.checkpoints(self.out / "checkpoints")
            raise DivergedError(f"{error}; last good checkpoint: {good[-1] if good else 'none yet'}") from None
        finally:
            if self.tracking:
                self.accelerator.end_training()  # trackers write late: without it the last losses would be missing
        return self._summary(first, time.perf_counter() - started)

    def _report(self) -> None:
        trainer = self.trainer
        losses = trainer.collect_losses()
        if not self.main:
            return
        batch = self.config.train.batch_size * trainer.world
        speed = pictures_per_second(trainer.step - self.since_step, batch, self.since)
        self.since, self.since_step = time.perf_counter(), trainer.step
        self.log.add(trainer.step, losses, pictures_per_second=round(speed, 3))
        if self.tracking:
            self.accelerator.log(losses, step=trainer.step)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        say(f"step {trainer.step}/{trainer.total}  {shown}  {speed:.2f} pictures/s")
        self.last_losses = losses

    def _sample(self) -> None:
        if not self.main:
            return
        trainer, device = self.trainer, self.accelerator.device
        batch = {side: part.to(device) for side, part in self.batches.fixed(GRID_ROWS).items()}
        trained, trainer.model.generators = trainer.model.generators, trainer.best_generators
        try:
            with presenting(*trainer.model.generators.values()):
                columns = trainer.model.preview(batch)
        finally:
            trainer.model.generators = trained
        run_page.save_grid(columns, self.out / "samples" / f"step-{trainer.step:09d}.png")
        title = f"{self.config.model.name}: {self.out.name}"
        status = f"step {trainer.step} of {trainer.total}"
        settings = json.dumps(self.config.model_dump(mode="json"), indent=1)
        run_page.write_page(self.out, title, status, self.log.curves, settings)

    def _checkpoint(self) -> None:
        if self.trainer.save(self.out / "checkpoints", {"threads": self.threads}) is not None:
            self._save_weights()

    def _save_weights(self) -> None:
        trainer = self.trainer
        height, width = self.batches.size
        about = {"steps": trainer.step, "batch_size": self.config.train.batch_size * trainer.world,
                 "height": height, "width": width, "seed": self.config.train.seed,
                 "averaged": trainer.ema is not None, "resized": self.config.data.load_size is not None}  # fmt: skip
        generators, discriminators = dict(trainer.best_generators), dict(trainer.model.discriminators)
        save_weights(self.out / "weights", self.config.model, generators, discriminators, about=about)

    def _restore(self) -> None:
        stored = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        if stored["pictures"] != self.batches.fingerprint():
            raise InputError("--data", "other pictures than the run began with", "the same folder, unchanged")
        if stored["threads"] != self.threads and self.accelerator.device.type == "cpu" and self.main:
            say(f"warning: {self.threads} threads instead of {stored['threads']}: the last bits may differ")
        good = state.checkpoints(self.out / "checkpoints")
        if good:
            self.trainer.restore(good[-1])
        if self.main:
            say(f"resuming at step {self.trainer.step}")

    def _write_settings(self) -> None:
        record = {"config": self.config.model_dump(mode="json"), "pictures": self.batches.fingerprint(),
                  "threads": self.threads, "torch": torch.__version__}  # fmt: skip
        replace_text(self.out / "run.json", json.dumps(record, indent=1) + "\n")

    def _summary(self, first: int, seconds: float) -> dict[str, Any]:
        steps = self.trainer.step - first
        rate = steps * self.config.train.batch_size * self.trainer.world / seconds if steps else 0.0
        return {"out": str(self.out), "model": self.config.model.name, "steps": self.trainer.step, "trained": steps,
                "seconds": round(seconds, 2), "pictures_per_second": round(rate, 3), "losses": self.last_losses,
                "weights": str(self.out / "weights")}  # fmt: skip


def check_sizes(model: Any, size: tuple[int, int]) -> None:
    """Refuse pictures of `size` = (height, width) that the networks of `model` cannot take.

    Raises:
        InputError: a side the generator cannot halve, or one too small for the discriminator.
    """
    height, width = size
    if model.name == "dcgan":
        if size != (model.size, model.size):
            found = f"pictures of {width}x{height} px for model.size {model.size}"
            raise InputError("--data", found, f"--set data.load_size={model.size} or a fitting --set model.size=N")
        return
    net = model.generator
    hint = ", or a smaller model.generator.downs" if net.kind == "unet" else ""
    check_side(width, height, net.stride, "--data", "pictures (after data.size)", hint)
    if min(size) < LEAST_SIDE:
        raise InputError("--data", f"pictures (after data.size) of {width}x{height} px", f"sides from {LEAST_SIDE} px")
    if getattr(model, "gan", True) and min(size) < model.discriminator.smallest:
        net = model.discriminator
        found = f"{net.n_layers} with scales {net.scales} for pictures of {width}x{height} px"
        raise InputError("model.discriminator.n_layers", found, f"less of either, or sides from {net.smallest} px")


def _accelerator(train: Train, tracker: str | None, out: Path) -> Accelerator:
    precision = "no" if train.precision == "fp32" else train.precision
    # every step updates: a launcher's setting for accumulation would only divide the gradients
    every_step = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(cpu=train.cpu, mixed_precision=precision, log_with=tracker, project_dir=str(out),
                       gradient_accumulation_plugin=every_step)  # fmt: skip


def _stored_config(model: str, out: Path, file: Path | None, sets: Sequence[str]) -> RunConfig:
    if file:
        raise InputError("--config", f"'{file}' beside --resume", "--set for what may change: " + ", ".join(FREE))
    try:
        tree = json.loads((out / "run.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("--resume", f"no run in '{out}'", "the --out folder of an earlier run") from error
    before = checked(RunConfig, tree, "--resume")
    if before.model.name != model:
        raise InputError("MODEL", f"'{model}' for a run of '{before.model.name}'", before.model.name)
    for item in sets:
        key = item.partition("=")[0]
        if key.removeprefix("train.") not in FREE or not key.startswith("train."):
            raise InputError("--set", f"'{key}' beside --resume", ", ".join(f"train.{name}" for name in FREE))
    return checked(RunConfig, override(before.model_dump(), sets), "--set")
