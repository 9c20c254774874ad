"""The command line: `freectl`. Nothing here or below imports torch before a command needs it."""

import sys
from typing import Annotated

import typer

from freectl.cli import bases, batch, cache, control, edit, env, methods, mini, results, tour, ui
from freectl.cli.app import App
from freectl.cli.ending import ended
from freectl.files.atomic import FINISHED

ABOUT = """Change a picture as a sentence says and keep its structure, without training.

A prompt describes the result, it is not an instruction: "a bronze horse", not "make the horse bronze".
"""

app = App(
    name="freectl",
    help=ABOUT,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from freectl import __version__

        typer.echo(f"freectl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """See `ABOUT`."""


root.__doc__ = ABOUT
app.command("edit", loads=True, epilog=edit.EXAMPLES)(edit.edit)
app.command("control", loads=True, epilog=control.EXAMPLES)(control.control)
app.command("compare", epilog=results.EXAMPLES)(results.compare)
app.command("batch", loads=True, epilog=batch.EXAMPLES)(batch.batch)
app.add_typer(bases.app, name="bases")
app.add_typer(cache.app, name="cache")
app.command("methods", epilog=methods.EXAMPLES)(methods.methods)
app.add_typer(mini.app, name="mini")
app.command("env", epilog=env.EXAMPLES)(env.env)
app.command("tour", epilog=tour.EXAMPLES)(tour.tour)
app.command("ui", epilog=ui.EXAMPLES)(ui.ui)


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    FINISHED.clear()
    sys.exit(ended(app, finished, "freectl: "))


def finished() -> str:
    """What to say after an interruption: what is on disk by then."""
    return f"interrupted; finished: {', '.join(map(str, FINISHED))}" if FINISHED else "interrupted; nothing was written"
