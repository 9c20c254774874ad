"""Train parts of the embedded model in order; each writes into the model folder when it is done."""

from collections.abc import Callable
from pathlib import Path

import torch

from freectl.mini.training.clip import ClipPart
from freectl.mini.training.judge import JudgePart
from freectl.mini.training.tokenizer import write_tokenizer
from freectl.mini.training.trainer import Part, TrainConfig, Trainer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import VAEPart

PARTS: tuple[str, ...] = ("vae", "unet", "clip", "judge")
DEFAULTS: dict[str, TrainConfig] = {
    "vae": TrainConfig(pictures=60_000, batch=8, learning_rate=2e-3, ema_decay=0.999, sheet_steps=1000),
    "unet": TrainConfig(pictures=1_000_000),
    "clip": TrainConfig(pictures=300_000, batch=64, warmup=100, ema_decay=0.998, muon=True),
    "judge": TrainConfig(pictures=120_000, batch=32, learning_rate=2e-3, ema_decay=0.998),
}


def make_part(name: str, model_dir: Path) -> Part:
    """The part of that name."""
    if name == "vae":
        return VAEPart()
    made: dict[str, Callable[[Path], Part]] = {"unet": UNetPart, "clip": ClipPart, "judge": JudgePart}
    return made[name](model_dir)


def train_part(
    name: str,
    config: TrainConfig,
    run_dir: Path,
    model_dir: Path,
    threads: int | None = None,
    init: Path | None = None,
    compiled: bool = False,
) -> None:
    """Train one part (or go on with it) and write its weights below `model_dir`.

    Args:
        init: model folder whose weights a new run starts from, in place of random ones.
        compiled: `torch.compile` the networks: pays after some ten minutes, and changes the last bits.
    """
    if threads:
        torch.set_num_threads(threads)
    write_tokenizer(model_dir / "tokenizer")
    part = make_part(name, model_dir)
    if init is not None:
        part.start_from(init)
    if compiled:
        for module in part.modules.values():
            module.compile()
    Trainer(part, config, run_dir / name).run()
    with torch.compiler.set_stance("force_eager"):
        part.export(model_dir if name == "unet" else model_dir / name)
