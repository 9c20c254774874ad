"""Commands that use every option they are given, or refuse it, and whose help is grouped and shows examples."""

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand

from freectl.cli.late import read_late
from freectl.cli.panels import PANELS
from freectl.errors import InputError
from freectl.files import collector

OTHERS = "Options"


def examples(*commands: str) -> str:
    """The end of a command's help: what people may type."""
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])  # \b: lines stay as they are


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

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments first, then the options by the groups of `panels`."""
        groups: dict[str, list[Any]] = {name: [] for name in ("Arguments", *PANELS, OTHERS)}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if line is not None:
                option = param.param_type_name == "option"
                groups[getattr(param, "rich_help_panel", None) or OTHERS if option else "Arguments"].append(line)
        for name, lines in groups.items():
            if lines:
                with formatter.section(name):
                    formatter.write_dl(lines)


class LoadingCommand(OnceCommand):
    """A command that loads one model and ends when it has used it, and is started and ended accordingly."""

    def invoke(self, ctx: Any) -> Any:
        """As click's."""
        read_late()
        with collector.held():
            return super().invoke(ctx)


class App(typer.Typer):
    """A typer application whose commands are `OnceCommand`s."""

    def command(self, name: str | None = None, *, loads: bool = False, **options: Any) -> Any:
        """As typer's; `loads` makes it a `LoadingCommand`."""
        return super().command(name, cls=LoadingCommand if loads else OnceCommand, **options)
