"""How every command of this package ends: exit codes, and errors of one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from freectl.cli.ending import ended
from freectl.errors import FreectlError
from gan_baselines.errors import GanError


def guarded(command: Callable[..., None]) -> None:
    """Run a typer command: exit 0 done, 1 failed, 2 bad usage or input; errors are one line on stderr."""
    _ended_of_one(command, help_option_names=["-h", "--help"])


def guarded_main(main: Callable[[], None]) -> None:
    """As `guarded`, for a command that parses its own arguments, and for errors of `gan_baselines` too."""

    def run() -> None:
        try:
            main()
        except GanError as error:
            failed = FreectlError(str(error))
            failed.exit_code = error.exit_code
            raise failed from error

    _ended_of_one(run, help_option_names=[], allow_extra_args=True, ignore_unknown_options=True)


def _ended_of_one(command: Callable[..., None], **settings: object) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(context_settings=settings)(command)
    guarded_app(app)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose usage errors are one line, as typer's are here; its help keeps the lines of `description`."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Exit 2 with the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def guarded_app(app: typer.Typer) -> None:
    """As `guarded`, for an app with several commands."""
    sys.exit(ended(app, "interrupted; start again to go on"))
