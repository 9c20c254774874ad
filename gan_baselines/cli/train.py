"""`gan-baselines train` and `gan-baselines settings`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, emit

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="dcgan, pix2pix, cyclegan or modified-cyclegan.", show_default=False)
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="JSON or YAML with sections model, data, train.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, such as train.steps=1000; repeatable."),
]


def train(
    model: ModelArgument,
    data: Annotated[Path, typer.Option(help="Folder of pictures (see `gan-baselines data --help`).")],
    out: Annotated[Path, typer.Option(help="Folder of the run: new, or that of the run to resume.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    form: FormatOption = Format.human,
) -> None:
    """Train a model; weights, checkpoints, losses.jsonl, samples and index.html go to --out.

    Several GPUs: `accelerate launch -m gan_baselines train ...`.
    """
    from gan_baselines.training.run import train as run

    result = run(model, data, out, file=config, sets=sets or (), resume=resume)
    if os.environ.get("RANK", "0") != "0":
        return
    text = f"{result['trained']} steps in {result['seconds']} s, weights in {result['weights']}"
    emit(result, text if result["trained"] else f"nothing left to train; weights in {result['weights']}", form)


def settings(model: ModelArgument, config: ConfigOption = None, sets: SetOption = None) -> None:
    """Print the settings a training would use, as JSON that --config takes."""
    from gan_baselines.settings import resolve

    typer.echo(resolve(model, config, sets or ()).model_dump_json(indent=1))
