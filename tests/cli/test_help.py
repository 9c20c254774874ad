"""The help of every command: groups, examples that the command itself understands."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from freectl.cli import app
from freectl.cli.app import OTHERS
from freectl.cli.panels import PANELS


def leaves(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that runs something, with the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield names, command
        return
    for name, one in inner.items():
        yield from leaves(one, (*names, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def examples(command: Any) -> list[list[str]]:
    """The commands at the end of the help, as words."""
    lines = (command.epilog or "").replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith("freectl ")]


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_two_examples_that_the_command_understands(names: tuple[str, ...]) -> None:
    command = COMMANDS[names]
    found = examples(command)
    assert len(found) >= 2
    for words in found:
        assert tuple(words[: 1 + len(names)]) == ("freectl", *names)
        context = command.make_context(names[-1], words[1 + len(names) :])
        assert context.command is command


@pytest.mark.parametrize("name", ["edit", "control"])
def test_options_are_grouped(name: str) -> None:
    command = COMMANDS[name,]
    text = command.get_help(command.make_context(name, []))
    heads = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == [*PANELS, OTHERS]
    for param in command.params:
        assert param.rich_help_panel in PANELS, param.name
    # every option stands in its group, once
    groups = {head: text.split(f"{head}:\n")[1].split("\n\n")[0] for head in heads}
    for param in command.params:
        places = [head for head, lines in groups.items() if any(
            word in lines.split() for word in (max(param.opts, key=len),))]  # fmt: skip
        assert param.rich_help_panel in places
