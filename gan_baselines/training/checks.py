"""What is looked at before a run begins: settings of a stored run, sizes of pictures, the device."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from gan_baselines.config import LEAST_SIDE, RunConfig, Train
from gan_baselines.data.sets import check_side
from gan_baselines.errors import InputError
from gan_baselines.settings import checked, override

# what a resumed run may change: none of it alters a step's arithmetic except the length, which sets the schedules
FREE = ("epochs", "decay_epochs", "steps", "log_every", "sample_every", "checkpoint_every", "keep_checkpoints",
        "tracker", "threads", "evaluate_every", "evaluate_pictures")  # fmt: skip


def wants_small(file: Path | None, sets: Sequence[str]) -> bool:
    """Whether the small preset fits best where none is named: no GPU, and nothing said of model or data.

    The papers' networks at the papers' sizes take up to half a minute a step on a CPU.
    """
    if file or any(not item.startswith("train.") for item in sets):
        return False
    return "train.cpu=true" in sets or not torch.cuda.is_available()


def check_sizes(model: Any, size: tuple[int, int]) -> None:
    """Refuse pictures of `size` = (height, width) that the networks of `model` cannot take.

    Raises:
        InputError: a side the generator cannot halve, or one too small for the discriminator.
    """
    height, width = size
    if model.side is not None:
        if size != (model.side, model.side):
            found = f"pictures of {width}x{height} px for model.size {model.side}"
            raise InputError("--data", found, f"--set data.load_size={model.side} or a fitting --set model.size=N")
        return
    generator = getattr(model, "generator", None)
    hint = ", or a smaller model.generator.downs" if generator and generator.kind == "unet" else ""
    check_side(width, height, model.multiple, "--data", "pictures (after data.size)", hint)
    if min(size) < LEAST_SIDE:
        raise InputError("--data", f"pictures (after data.size) of {width}x{height} px", f"sides from {LEAST_SIDE} px")
    net = getattr(model, "discriminator", None)
    if net and getattr(model, "gan", True) and min(size) < net.smallest:
        found = f"{net.n_layers} with scales {net.scales} for pictures of {width}x{height} px"
        raise InputError("model.discriminator.n_layers", found, f"less of either, or sides from {net.smallest} px")


def accelerator_for(train: Train, tracker: str | None, out: Path) -> Accelerator:
    """The device and precision that a run computes in."""
    precision = "no" if train.precision == "fp32" else train.precision
    # every step updates: a launcher's setting for accumulation would only divide the gradients
    every_step = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(cpu=train.cpu, mixed_precision=precision, log_with=tracker, project_dir=str(out),
                       gradient_accumulation_plugin=every_step)  # fmt: skip


def stored_config(model: str, out: Path, file: Path | None, sets: Sequence[str]) -> RunConfig:
    """The settings of the run in `out`, with the free ones of `sets` changed.

    Raises:
        InputError: no run there, another model's, or a setting that would alter its steps.
    """
    if file:
        raise InputError("--config", f"'{file}' beside --resume", "--set for what may change: " + ", ".join(FREE))
    try:
        tree = json.loads((out / "run.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("--resume", f"no run in '{out}'", "the --out folder of an earlier run") from error
    before = checked(RunConfig, tree, "--resume")
    if before.model.name != model:
        raise InputError("MODEL", f"'{model}' for a run of '{before.model.name}'", before.model.name)
    for item in sets:
        key = item.partition("=")[0]
        if key.removeprefix("train.") not in FREE or not key.startswith("train."):
            raise InputError("--set", f"'{key}' beside --resume", ", ".join(f"train.{name}" for name in FREE))
    return checked(RunConfig, override(before.model_dump(), sets), "--set")
