"""The command line: `freectl`. Nothing here or below imports torch before a command needs it."""

import sys

import typer

from freectl.cli import bases, cache, edit, env, methods, mini
from freectl.errors import FreectlError

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
app.add_typer(bases.app, name="bases")
app.add_typer(cache.app, name="cache")
app.command("methods")(methods.methods)
app.add_typer(mini.app, name="mini")
app.command("env")(env.env)


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    try:
        app()
    except FreectlError as error:
        sys.stderr.write(f"freectl: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("freectl: interrupted; nothing was written\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
