"""`gan-baselines train` and `gan-baselines settings`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gan_baselines.cli.output import Format, FormatOption, emit
from gan_baselines.config import MODELS
from gan_baselines.errors import InputError

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="One of: " + ", ".join(MODELS) + ".", show_default=False)
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="JSON or YAML with sections model, data, train.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, such as train.steps=1000; repeatable."),
]


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="published: the papers' sizes; small: 64 px.  [default: published; small where there is no GPU and "
        "neither --config nor --set says anything of model or data]",
        show_default=False,
    ),
]


def train(
    model: ModelArgument,
    data: Annotated[Path, typer.Option(help="Folder of pictures (see `gan-baselines data --help`).")],
    out: Annotated[Path, typer.Option(help="Folder of the run: new, or that of the run to resume.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    preset: PresetOption = None,
    style: Annotated[
        Path | None,
        typer.Option(help="A picture or a folder of styles, as adain takes; --data is then the contents."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    form: FormatOption = Format.human,
) -> None:
    """Train a model; weights, checkpoints, losses.jsonl, samples and index.html go to --out.

    Several GPUs: `accelerate launch -m gan_baselines train ...`.
    """
    from gan_baselines.training.run import train as run

    for option, given in (("--preset", preset), ("--style", style)):
        if given is not None and resume:
            raise InputError(option, f"'{given}' beside --resume", "the settings that the run began with")
    result = run(model, data, out, file=config, sets=sets or (), resume=resume, preset=preset, style=style)
    if os.environ.get("RANK", "0") != "0":
        return
    text = f"{result['trained']} steps in {result['seconds']} s, weights in {result['weights']}"
    emit(result, text if result["trained"] else f"nothing left to train; weights in {result['weights']}", form)


def settings(
    model: ModelArgument, config: ConfigOption = None, sets: SetOption = None, preset: PresetOption = None
) -> None:
    """Print the settings a training would use (--preset published where none is named), as JSON that --config takes."""
    from gan_baselines.settings import resolve

    typer.echo(resolve(model, config, sets or (), preset or "published").model_dump_json(indent=1))
