"""The groups in which `--help` lists options: what, where, how strong, with which model, on which machine, to what."""

from collections.abc import Callable
from functools import partial
from typing import Any

import typer

PANELS = ("What", "Where", "How strong", "Model", "Machine", "Result")
"""In this order; options of no group come last."""
Option = Callable[..., Any]
what: Option = partial(typer.Option, rich_help_panel="What")
where: Option = partial(typer.Option, rich_help_panel="Where")
strong: Option = partial(typer.Option, rich_help_panel="How strong")
model: Option = partial(typer.Option, rich_help_panel="Model")
machine: Option = partial(typer.Option, rich_help_panel="Machine")
result: Option = partial(typer.Option, rich_help_panel="Result")
