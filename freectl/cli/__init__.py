"""The command line: `freectl`. Nothing here or below imports torch before a command needs it."""

import sys

import typer

from freectl.cli import bases, cache, control, edit, env, methods, mini
from freectl.errors import FreectlError

INTERRUPTED = 130
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
    try:
        code = app(standalone_mode=False)
    except FreectlError as error:
        code = _failed(str(error), error.exit_code)
    except typer.Abort:
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1
    except Exception as error:
        # typer's usage errors have changed module between its releases
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            code = 2
        else:
            code = _failed(" ".join(error.format_message().split()), 2)
    if code == INTERRUPTED:
        _failed("interrupted; nothing was written", code)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(text: str, code: int) -> int:
    sys.stderr.write(f"freectl: {text}\n")
    return code
