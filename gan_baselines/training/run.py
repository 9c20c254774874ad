"""A training run from its folder's point of view: checks, start or resume, loop, results."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gan_baselines.config import RunConfig, layout_of
from gan_baselines.data.batches import Batches
from gan_baselines.data.folders import find_sources, same_names
from gan_baselines.errors import DivergedError, InputError, TrainingStoppedError
from gan_baselines.files import check_new, replace_text
from gan_baselines.inference import presenting
from gan_baselines.models import build
from gan_baselines.settings import resolve
from gan_baselines.training import run_page, state
from gan_baselines.training.checks import accelerator_for, check_sizes, stored_config, wants_small
from gan_baselines.training.device import check_precision, set_threads
from gan_baselines.training.monitor import RunLog, choose_tracker, say
from gan_baselines.training.score import Scores, check_test_split
from gan_baselines.training.signals import stoppable
from gan_baselines.training.trainer import Trainer, pictures_per_second
from gan_baselines.weights import save_weights, started, without_sources

GRID_ROWS = 6


def train(
    model: str, data: Path, out: Path, *, file: Path | None = None, sets: Sequence[str] = (), resume: bool = False,
    preset: str | None = None, style: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `model` on the folder `data` into the folder `out`; return what happened as JSON-ready values.

    `style` is the setting `data.style`.

    Raises:
        InputError: settings, pictures or folder do not fit; found before anything is written.
        DivergedError: a loss was not finite; the last good checkpoint is kept.
        TrainingStoppedError: SIGINT or SIGTERM; the step was finished and a checkpoint written.
    """
    small = preset is None and not resume and wants_small(file, sets)
    chosen = preset or ("small" if small else "published")
    config = stored_config(model, out, file, sets) if resume else resolve(model, file, sets, chosen)
    if style is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"style": str(style.resolve())})})
    if not resume:
        check_new(out, allowed="a new folder, or --resume to go on with its run")
    run = Run(config, data, out, resume)
    if small:
        say("no GPU: --preset small, 64 px and narrow networks (--preset published for the paper's)")
    return run.go()


class Run:
    """One run: `go` trains to the end."""

    def __init__(self, config: RunConfig, data: Path, out: Path, resume: bool) -> None:
        self.config, self.out = config, out
        check_precision(config.train.precision, config.train.cpu)
        tracker = choose_tracker(config.train.tracker)
        self.batches = Batches(data, config, layout_of(config.model.name))
        self.config = config = self.batches.config
        check_sizes(config.model, self.batches.size)
        if config.train.evaluate_every:
            check_test_split(data, config)
        self.threads = set_threads(config.train.threads)
        torch.manual_seed(config.train.seed)
        begun = resume and bool(state.checkpoints(out / "checkpoints"))
        network = build(without_sources(config.model)) if begun else started(config.model)
        self.batches.load()  # last, since it takes longest: sizes and settings are known to fit
        self.accelerator = accelerator_for(config.train, tracker, out)
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
            self.scores = Scores(out, data, config, self.trainer.step) if config.train.evaluate_every else None
        if not resume:
            self._note_pairs(data)
        if tracker:
            self.accelerator.init_trackers(config.model.name)
        self.tracking = bool(tracker)
        self.last_losses: dict[str, float] = {}

    def go(self) -> dict[str, Any]:
        """Train to the last step.

        Raises:
            DivergedError: a loss or weight was not finite.
            TrainingStoppedError: a signal came; the step it fell into is finished and stored.
        """
        trainer = self.trainer
        started, first = time.perf_counter(), trainer.step
        self.since, self.since_step = started, first
        if first == trainer.total and self.main:
            self._save_weights()  # a run killed right after its last checkpoint has none of that step yet
        elif first == 0:
            self._sample()
        try:
            with stoppable() as stop:
                while trainer.step < trainer.total:
                    trainer.advance()
                    if trainer.step == first + 1:
                        self._announce(started)
                    stopped = self._stopped(stop.number)
                    self._keep(stopped)
                    if stopped and trainer.step < trainer.total:
                        raise TrainingStoppedError(stop.number or signal.SIGTERM, trainer.step, self.out)
        except DivergedError as error:
            good = state.checkpoints(self.out / "checkpoints")
            raise DivergedError(f"{error}; last good checkpoint: {good[-1] if good else 'none yet'}") from None
        finally:
            if self.tracking:
                self.accelerator.end_training()  # trackers write late: without it the last losses would be missing
        return self._summary(first, time.perf_counter() - started)

    def _keep(self, stopped: bool) -> None:
        every, step = self.config.train, self.trainer.step
        last = step == self.trainer.total
        # a stop adds no line and no grid, so that the resumed run's log is that of an uninterrupted one
        if last or step % every.log_every == 0:
            self._report()
        if last or step % every.sample_every == 0:
            self._sample()
        if every.evaluate_every and (last or step % every.evaluate_every == 0):
            self._evaluate()
        if last or stopped or step % every.checkpoint_every == 0:
            self._checkpoint()

    def _stopped(self, number: int) -> bool:
        if self.trainer.world == 1:
            return bool(number)
        # all processes must agree on the last step: a signal may reach them in different ones
        asked = torch.tensor(float(number > 0), device=self.accelerator.device)
        return float(self.accelerator.reduce(asked, "sum")) > 0

    def _announce(self, started: float) -> None:
        if not self.main:
            return
        seconds, trainer = time.perf_counter() - started, self.trainer
        batch = self.config.train.batch_size * trainer.world
        left = seconds * (trainer.total - trainer.step)
        say(f"first step: {seconds:.2f} s, {batch / seconds:.2f} pictures/s; at this rate {_duration(left)} for "
            f"{trainer.total - trainer.step} steps more; samples in '{self.out / 'index.html'}'")  # fmt: skip

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
        with self._best(), presenting(*trainer.model.generators.values()):
            columns = trainer.model.preview(batch)
        run_page.save_grid(columns, self.out / "samples" / f"step-{trainer.step:09d}.png")
        title = f"{self.config.model.name}: {self.out.name}"
        status = f"step {trainer.step} of {trainer.total}"
        settings = json.dumps(self.config.model_dump(mode="json"), indent=1)
        run_page.write_page(self.out, title, status, self.log.curves, settings)

    @contextmanager
    def _best(self) -> Iterator[None]:
        """The averaged generators in the place of the trained ones, where an average is kept."""
        model, trained = self.trainer.model, self.trainer.model.generators
        model.generators = self.trainer.best_generators
        try:
            yield
        finally:
            model.generators = trained

    def _evaluate(self) -> None:
        if not self.main or self.scores is None:
            return
        trainer = self.trainer
        with self._best():
            better = self.scores.add(trainer.model, trainer.step, self._about())
        shown = "  ".join(f"{name} {value:.4f}" for name, value in self.scores.lines[-1].items() if name != "step")
        say(f"step {trainer.step}/{trainer.total}  test: {shown}{'  (best)' if better else ''}")
        if better:
            self._save_weights("best")

    def _about(self) -> dict[str, Any]:
        height, width = self.batches.size
        train, trainer = self.config.train, self.trainer
        return {"steps": trainer.step, "batch_size": train.batch_size * trainer.world, "height": height, "width": width,
                "seed": train.seed, "averaged": trainer.ema is not None,
                "resized": self.config.data.load_size is not None}  # fmt: skip

    def _checkpoint(self) -> None:
        if self.trainer.save(self.out / "checkpoints", {"threads": self.threads}) is not None:
            self._save_weights()

    def _save_weights(self, folder: str = "weights") -> None:
        trainer = self.trainer
        generators, discriminators = dict(trainer.best_generators), dict(trainer.model.discriminators)
        helpers = {name: trainer.model.helpers[name] for name in trainer.model.carried}
        save_weights(self.out / folder, self.config.model, generators, discriminators, helpers=helpers,
                     translators=sorted(trainer.model.translators), about=self._about())  # fmt: skip

    def _note_pairs(self, data: Path) -> None:
        name = self.config.model.name
        if self.config.data.style:
            return
        if self.main and layout_of(name) == "unpaired" and same_names(find_sources(data, "unpaired")):
            say(f"note: both sides of '{data}' hold files of equal names. {name} draws from each side by itself; "
                "models such as pix2pix learn from the pairs")  # fmt: skip

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


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {seconds:.0f} seconds"
