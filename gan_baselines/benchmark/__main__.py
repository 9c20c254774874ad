"""`python -m gan_baselines.benchmark`: our step against the plain one, and each saving alone."""

import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator

from gan_baselines.benchmark.plain import PlainStep, Savings
from gan_baselines.cli.output import columns
from gan_baselines.config import RunConfig
from gan_baselines.models import Batch, build
from gan_baselines.settings import resolve
from gan_baselines.training.device import check_precision
from gan_baselines.training.monitor import say
from gan_baselines.training.trainer import Trainer

MEASURES = {
    "cyclegan": (
        "joint_discriminator",
        "joint_generator",
        "fused_adam",
        "no_item",
        "coarse_products",
        "group_norm_kernel",
        "channels_last",
    ),
    "pix2pix": ("fused_adam", "no_item", "coarse_products", "channels_last"),
}
SETTINGS = {
    "cyclegan": ["model.generator.blocks=6", "model.generator.width=32"],
    "cyclegan-unet": ["model.generator.kind=unet", "model.generator.downs=6", "model.generator.width=32"],
    "pix2pix": ["model.generator.downs=6", "model.generator.width=32"],
}


class Fixed:
    """Random pictures in place of a folder, so that reading files is not part of the measurement."""

    def __init__(self, config: RunConfig, size: int) -> None:
        rng = torch.Generator().manual_seed(0)
        shape = (config.train.batch_size, 3, size, size)
        self.batch: Batch = {side: torch.rand(shape, generator=rng) * 2 - 1 for side in "AB"}

    def __len__(self) -> int:
        return 1

    def total_steps(self, world: int = 1) -> int:
        """Far away."""
        return 1_000_000

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The same pictures every step."""
        return self.batch


def steps_of(name: str, size: int, batch: int, precision: str = "no") -> dict[str, Callable[[], None]]:
    """Return a training step for each contender: plain, each saving alone, ours."""
    model = name.partition("-")[0]
    config = resolve(model, None, [*SETTINGS[name], f"train.batch_size={batch}", "train.cpu=true"])
    torch.manual_seed(0)
    network, pictures = build(config.model), Fixed(config, size)
    contenders = {"plain": Savings(), **{measure: Savings(**{measure: True}) for measure in MEASURES[model]}}
    made: dict[str, Callable[[], None]] = {}
    for contender, savings in contenders.items():
        plain = PlainStep(copy.deepcopy(network), savings)
        made[contender] = lambda plain=plain: plain(pictures.batch)  # type: ignore[misc]
    trainer = Trainer(copy.deepcopy(network), pictures, config, Accelerator(cpu=True, mixed_precision=precision))  # type: ignore[arg-type]
    made["ours"] = trainer.advance
    return made


def measure(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of a step; the contenders take turns, so that load on the machine hits all alike."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, step in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            if turn:  # the first round pays for allocations
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {n: [statistics.median(part) for part in zip(*times, strict=True)] for n, times in spent.items()}
    base = medians["plain"][1]
    return {name: {"wall_s": wall, "cpu_s": cpu, "speedup": base / cpu} for name, (wall, cpu) in medians.items()}


def main(
    rounds: Annotated[int, typer.Option(help="Measured steps of each contender.", min=1)] = 20,
    size: Annotated[int, typer.Option(help="Picture side in px.", min=64)] = 64,
    batch: Annotated[int, typer.Option(help="Pictures a step.", min=1)] = 1,
    only: Annotated[str | None, typer.Option(help="cyclegan, cyclegan-unet or pix2pix.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Ours under autocast to bfloat16; the plain step stays fp32.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Measure training steps; speedup is the plain step's CPU time over the contender's."""
    if only is not None and only not in SETTINGS:
        raise typer.BadParameter(f"found '{only}'; allowed: {', '.join(SETTINGS)}", param_hint="--only")
    torch.set_num_threads(threads)
    check_precision("bf16" if bf16 else "fp32", cpu=True)
    report: dict[str, Any] = {
        "size": size,
        "batch": batch,
        "threads": threads,
        "bf16": bf16,
        "torch": torch.__version__,
    }
    for name in [only] if only else SETTINGS:
        say(f"measuring {name}")
        report[name] = measure(steps_of(name, size, batch, "bf16" if bf16 else "no"), rounds)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name in [name for name in SETTINGS if name in report]:
        rows = [[n, *(f"{value:.3f}" for value in values.values())] for n, values in report[name].items()]
        typer.echo(f"{name}, {size} px, batch {batch}\n" + columns([["step", "wall s", "cpu s", "speedup"], *rows]))


if __name__ == "__main__":
    typer.run(main)
