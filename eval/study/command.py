"""A study with people, from result folders: `make` writes one HTML page, `score` reads the answers that it gives back.

Three kinds of question, as in the literature: which of two pictures is real, shown for a limited time (Isola et al.
2017); which of two edits of one picture is better (Mo et al. 2024 and others); does a caption fit (yes, somewhat, no).
The page tells nobody which method made a picture: that is in the key file beside it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.files import parsed, write_text
from freectl.errors import InputError

TASKS = ("real", "prefer", "caption")
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)  # fmt: skip


@app.command()
def make(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that eval.run wrote.")],
    out: Annotated[Path, typer.Option(help="HTML file; the key goes beside it as .key.json.")],
    tasks: Annotated[str, typer.Option(help="real, prefer, caption, with commas between.")] = ",".join(TASKS),
    methods: Annotated[
        str | None, typer.Option(help="Variants, with semicolons between.  [default: one of each curve]")
    ] = None,
    questions: Annotated[int, typer.Option(help="Of each kind.", min=1, max=500)] = 24,
    practice: Annotated[int, typer.Option(help="Real-or-fake pairs first, with the solution, not scored.", min=0)] = 2,
    seconds: Annotated[float, typer.Option(help="That a real-or-fake pair is shown.", min=0.1, max=60)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of cases, order and sides.", min=0)] = 0,
) -> None:
    """Write the page and its key."""
    from eval.results.reading import read
    from eval.study.page import page, questions_for

    chosen = [task.strip() for task in tasks.split(",") if task.strip()]
    if not chosen or set(chosen) - set(TASKS):
        raise InputError("--tasks", repr(tasks), ", ".join(TASKS))
    if out.suffix not in (".html", ".htm") or not out.parent.is_dir():
        raise InputError("--out", f"'{out}'", "a .html file in an existing folder")
    results = read(folders)
    labels = [text.strip() for text in methods.split(";")] if methods else None
    asked = questions_for(results, chosen, labels, questions, practice, seed)
    title = f"{results.abouts[0]['bench']}: which pictures do you prefer?"
    text, key = page(asked, title, seconds, seed)
    write_text(out, text)
    write_text(out.with_suffix(".key.json"), json.dumps(key, indent=1) + "\n")
    sys.stdout.write(f"{out}: {len(asked)} questions; keep {out.with_suffix('.key.json').name} from those you ask\n")


@app.command()
def score(
    key: Annotated[Path, typer.Argument(help="The .key.json file.")],
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS...", help="JSON files, one a participant.")],
    out: Annotated[Path | None, typer.Option(help="Also write the scores as JSON here.")] = None,
) -> None:
    """Print the scores of each method with 95 % intervals."""
    from eval.study.scores import markdown, scores_of

    found = scores_of(_read(key), [(path.name, _read(path)) for path in answers])
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    sys.stdout.write(markdown(found))


def _read(path: Path) -> dict[str, Any]:
    found = parsed(path, json.loads, "a JSON file of this study", "FILE")
    if not isinstance(found, dict) or "study" not in found:
        raise InputError("FILE", f"'{path}' without a study's id", "a JSON file of this study")
    return found
