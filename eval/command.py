"""How every command of this package ends: exit codes, and errors of one line."""

import sys
from collections.abc import Callable
from contextlib import suppress

import typer

from freectl.cli.ending import ended
from gan_baselines.errors import GanError


def guarded(command: Callable[..., None]) -> None:
    """Run a typer command: exit 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    _ended_of_one(command, help_option_names=["-h", "--help"])


def guarded_main(main: Callable[[], None]) -> None:
    """As `guarded`, for a command that parses its own arguments."""
    _ended_of_one(main, help_option_names=[], allow_extra_args=True, ignore_unknown_options=True)


def _ended_of_one(command: Callable[..., None], **settings: object) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings=settings)(command)
    guarded_app(app)


def guarded_app(app: typer.Typer) -> None:
    """As `guarded`, for an app with several commands.

    A full disk, a full standard output and an error of `gan_baselines` are one line too.
    """
    try:
        code = ended(app, "interrupted; start again to go on")
        if sys.stdout is not None:
            sys.stdout.flush()
    except GanError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        code = 1
        with suppress(OSError):
            sys.stderr.write(f"{error.filename or 'standard output or error'}: {error.strerror or error}\n")
        sys.stdout = None  # else the interpreter's last flush complains
    sys.exit(code)
