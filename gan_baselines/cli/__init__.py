"""The command line: `gan-baselines`. Nothing here imports torch before a command needs it."""

import sys
from typing import Annotated

import typer

from gan_baselines.cli import data, use
from gan_baselines.cli.export import export
from gan_baselines.cli.sample import sample
from gan_baselines.cli.train import settings, train
from gan_baselines.cli.translate import translate
from gan_baselines.config import MODELS
from gan_baselines.errors import GanError


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"gan-baselines {version('freectl')}")
        raise typer.Exit


app = typer.Typer(
    name="gan-baselines",
    help=f"Train and use published GANs: {', '.join(MODELS)}.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before a command."""


app.command("train")(train)
app.command("settings")(settings)
app.command("translate")(translate)
app.command("sample")(sample)
app.command("evaluate")(use.evaluate)
app.command("convert")(use.convert)
app.command("export")(export)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    try:
        app()
    except GanError as error:
        sys.stderr.write(f"gan-baselines: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("gan-baselines: interrupted; a training goes on from its last checkpoint with --resume\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        sys.stderr.write(f"gan-baselines: {error}\n")
        sys.exit(1)
