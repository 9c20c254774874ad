"""`freectl tour`."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

from freectl.cli import panels
from freectl.cli.app import examples
from freectl.cli.output import Format, FormatOption, emit, quiet_libraries

EXAMPLES = examples("freectl tour", "freectl tour --out shown --steps 50")
PAGE = "tour.html"
ABOUT = (
    "Made by `freectl tour` on the embedded model, a toy of 16 objects. For photographs name a real model with --model;"
    " everything else stays the same."
)


def tour(
    out: Annotated[
        Path, panels.result(help="Folder of the pictures and of tour.html: new, empty, or of a tour.")
    ] = Path("freectl_tour"),
    steps: Annotated[int, panels.strong(help="Steps of every run.", min=1, max=1000)] = 20,
    form: FormatOption = Format.human,
) -> None:
    """Show what there is, on the embedded model: edits, control, comparison, a run's inside, six edits judged."""
    _check(out)
    quiet_libraries()
    from freectl.files.atomic import atomic_write
    from freectl.tasks.tour import Tour
    from freectl.tasks.tour_page import page

    begin, shown, facts = perf_counter(), [], []
    guide = Tour(out, steps)
    for run in guide.stops():
        start = perf_counter()
        stop = run()
        seconds = perf_counter() - start
        shown.append(stop)
        facts.append(
            {"title": stop.title, "commands": stop.commands, "seconds": round(seconds, 2), "found": stop.found}
        )
        emit(None, "\n".join([f"{stop.title} ({seconds:.1f} s): {stop.about}", *(f"  {line}" for line in
             [*stop.commands, *stop.found])]), form if form is Format.human else Format.quiet)  # fmt: skip
    total = perf_counter() - begin
    foot = f"{steps} steps a run, {total:.0f} s in all. Every picture beside this page holds its own record: "
    foot += "freectl edit --config FILE repeats it."
    with atomic_write(out / PAGE) as file:
        file.write(page(shown, ABOUT, foot).encode())
    emit(
        {"output": str(out / PAGE), "seconds": round(total, 2), "stops": facts}, f"{out / PAGE}  ({total:.0f} s)", form
    )


def _check(out: Path) -> None:
    """Make the folder.

    Raises:
        InputError: it holds something else than a tour, or cannot be made.
    """
    from freectl.errors import InputError
    from freectl.files.paths import is_file, is_folder, made_folder

    if is_folder(out) and any(out.iterdir()) and not is_file(out / PAGE):
        raise InputError("--out", f"'{out}', a folder with other things in it", "a new or empty folder, or a tour's")
    made_folder(out, "--out")
