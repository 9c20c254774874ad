"""Commands that use every option they are given, or refuse it."""

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand

from freectl.errors import InputError


class OnceCommand(TyperCommand):
    """A command that refuses an option given twice, of which others would use the last one silently."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click's; also raises InputError."""
        # click's own order lists an option as often as it is given
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param, times in Counter(order).items():
            if times > 1 and param.param_type_name == "option" and not param.multiple:
                raise InputError(max(param.opts, key=len), f"{times} times on one command line", "once")
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A typer application whose commands are `OnceCommand`s."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        """As typer's."""
        return super().command(name, cls=OnceCommand, **options)
