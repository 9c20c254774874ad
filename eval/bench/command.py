"""The files of the mini benchmark: `python -m eval.bench make` writes them, `check` tells whether they are stale.

They are `prompts/mini_bench.jsonl`, `prompts/mini_held_out.jsonl` and `prompts/mini_control.jsonl`.
"""

import sys
from pathlib import Path

import typer

from eval.bench.mini_files import MAKE, contents
from eval.files import PROMPTS, made_folder, write_text

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command()
def make(folder: Path = PROMPTS) -> None:
    """Write the benchmark files."""
    made_folder(folder, "--folder")
    for name, text in contents().items():
        write_text(folder / name, text, "--folder")
        sys.stdout.write(f"{folder / name}: {len(text.splitlines())} cases\n")


@app.command()
def check(folder: Path = PROMPTS) -> None:
    """Exit 1 if a file is not what the domain gives."""
    for name, text in contents().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} is stale; make it anew with `{MAKE}`\n")
            raise typer.Exit(1)
