"""The command line: `freectl`. Nothing here or below imports torch before a command needs it."""

import sys

import typer

from freectl.cli import bases, cache, control, edit, env, methods, mini
from freectl.cli.ending import ended

app = typer.Typer(
    name="freectl",
    help="Change a picture as a sentence says and keep its structure, without training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("edit", epilog=edit.EXAMPLES)(edit.edit)
app.command("control", epilog=control.EXAMPLES)(control.control)
app.add_typer(bases.app, name="bases")
app.add_typer(cache.app, name="cache")
app.command("methods")(methods.methods)
app.add_typer(mini.app, name="mini")
app.command("env")(env.env)


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    sys.exit(ended(app, "interrupted; nothing was written", "freectl: "))
