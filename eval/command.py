"""How every command of this package ends: exit codes, and errors of one line."""

import sys
from collections.abc import Callable

import typer

from freectl.cli.ending import ended


def guarded(command: Callable[..., None]) -> None:
    """Run a typer command: exit 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    guarded_app(app)


def guarded_app(app: typer.Typer) -> None:
    """As `guarded`, for an app with several commands."""
    sys.exit(ended(app, "interrupted; start again to go on"))
