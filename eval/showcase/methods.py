"""Tables of all methods on the showcase's edits: what each reaches and costs, and what `--keep` does to the background.

Every method is told the same: picture, prompt and source prompt, at its default settings and as a first edit.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image, ImageChops

from eval.bench.world import drawn, mask_of, world_side
from eval.files import write_picture, write_text
from eval.scores.base import pixel_mse
from eval.showcase.edits import Case, judged, ten_cases
from freectl.cli.output import table
from freectl.files.pictures import compare_sheet
from freectl.pipelines.loading import resolve_model
from freectl.tasks import compare as comparing
from freectl.tasks import edit as editing
from freectl.tasks.compare import Entry
from freectl.tasks.options import EditOptions

COLUMNS = {
    "reached": "target word reached",
    "all_right": "all three words right",
    "iou": "foreground overlap",
    "background": "background MSE x10³",
    "rows": "row forwards",
    "backwards": "row backwards",
    "seconds": "seconds",
}

SHOWN = 128
"""Side in px of a cell of the sheet of ten edits."""


def objects_of(case: Case) -> Image.Image:
    """White where the object is in the input or in the exact answer."""
    return ImageChops.lighter(mask_of(case.source), mask_of(case.target))


def entries_of(case: Case, names: Sequence[str], **options: Any) -> list[Entry]:
    """The methods' results on a case; what fails is in its entry."""
    return comparing.compare(
        drawn(case.source), case.target.caption, names, source_prompt=case.source.caption, **options
    )


def ten_of_all(names: str, steps: int, output: Path | None, model: str = "mini") -> dict[str, Any]:
    """Run the ten edits with the methods; per method a row of means, and every edit's own row.

    Args:
        output: where a sheet goes, a row of it for each edit.
        model: as `--model` has it; "all" are those that it runs, and what fails is a black cell.
    """
    cases, chosen = ten_cases(), comparing.chosen(names, model=model)
    found = [entries_of(case, chosen, steps=steps, model=model) for case in cases]
    if output is not None:
        cells, side = [], world_side()
        for case, entries in zip(cases, found, strict=True):
            cells.append((case.target.caption, drawn(case.source)))
            cells += [
                (one.method, one.result.image if one.result else Image.new("RGB", (side, side))) for one in entries
            ]
        sheet = compare_sheet(cells, columns=len(chosen) + 1, scale=max(1, SHOWN // side))
        small = sheet.quantize(256, dither=Image.Dither.NONE)  # a quarter of the bytes
        write_picture(output, small, "--output", optimize=True)
    rows = {name: _rows(cases, [entries[i] for entries in found]) for i, name in enumerate(chosen)}
    return {"model": model, "steps": steps, "edits": len(cases), "summary": _summaries(rows), "rows": rows}


def _rows(cases: Sequence[Case], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    made = [(case, one.result) for case, one in zip(cases, entries, strict=True) if one.result is not None]
    verdicts = judged([case for case, _ in made], [result.image for _, result in made]) if made else []
    rows = []
    for (case, result), verdict in zip(made, verdicts, strict=True):
        outside = ImageChops.invert(objects_of(case))
        cost = result.cost
        spent = {
            "background": round(1000 * (pixel_mse(result.image, drawn(case.target), outside) or 0), 2),
            "rows": cost["row_forwards"],
            "backwards": cost["row_backwards"],
            "seconds": round(cost["seconds"]["analysis"] + cost["seconds"]["synthesis"], 2),
        }
        rows.append(verdict | spent)
    return rows + [{"error": one.error} for one in entries if one.result is None]


def _summaries(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, of_method in rows.items():
        done = [row for row in of_method if "error" not in row]
        failed = len(of_method) - len(done)
        found[name] = {"failed": failed} | (
            {
                "reached": f"{sum(row['reached'] for row in done)} of {len(done)}",
                "all_right": f"{sum(row['all_right'] for row in done)} of {len(done)}",
                "iou": f"{mean(row['iou'] for row in done):.3f}",
                "background": f"{mean(row['background'] for row in done):.2f}",
                "rows": f"{mean(row['rows'] for row in done):.0f}",
                "backwards": f"{mean(row['backwards'] for row in done):.0f}",
                "seconds": f"{mean(row['seconds'] for row in done):.1f}",
            }
            if done
            else {}
        )
    return found


def kept_of_all(names: str, steps: int, edits: int) -> dict[str, Any]:
    """Background error of the methods with everything free, with the object's true mask, and with its attention.

    The background is what lies outside the object in input and answer; edits of the background itself are left out.
    The first of the ten edits are taken. What `--keep-background` keeps is found once and given to all methods as a
    picture: a concept would have FreeControl make semantic bases of its own.
    """
    cases = [case for case in ten_cases() if case.kind != "background"][:edits]
    ways: dict[str, Callable[[Case], Image.Image | None]] = {
        "free": lambda case: None,
        "--keep PATH": lambda case: ImageChops.invert(objects_of(case)),
        "--keep-background": background_of,
    }
    chosen = comparing.chosen(names, model="mini")
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {name: {way: [] for way in ways} for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            for way, mask_of in ways.items():
                options, mask = {}, mask_of(case)
                if mask is not None:
                    path = Path(folder) / f"{number}_{len(way)}.png"
                    mask.save(path)
                    options = {"keep": str(path)}
                _keep(case, way, entries_of(case, chosen, steps=steps, **options), rows)
    summary = {
        name: {
            way: {
                "background_mse_x1e3": round(mean(row["background"] for row in found), 3),
                "reached": f"{sum(row['reached'] for row in found)} of {len(found)}",
                "iou": round(mean(row["iou"] for row in found), 3),
            }
            for way, found in ways_found.items()
            if found
        }
        for name, ways_found in rows.items()
    }
    return {"steps": steps, "edits": len(cases), "summary": summary}


def background_of(case: Case) -> Image.Image:
    """What `--keep-background` keeps of a case's input."""
    from freectl.methods.local_edit import BACKGROUND, kept_pictures
    from freectl.models.engine import Engine

    options = EditOptions(prompt=case.target.caption)
    pipe, _ = editing.opened(options, resolve_model(options.model))
    source = drawn(case.source)
    return kept_pictures(Engine(pipe), [source], BACKGROUND, [case.source.caption], case.source.object)[0]


def _keep(case: Case, way: str, entries: Sequence[Entry], rows: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Add a case's measures against the input, whose background is to stay."""
    outside = ImageChops.invert(objects_of(case))
    for one in entries:
        if one.result is not None:
            error = 1000 * (pixel_mse(one.result.image, drawn(case.source), outside) or 0)
            rows[one.method][way].append(judged([case], [one.result.image])[0] | {"background": error})


def tell(found: dict[str, Any], target: Path | None) -> None:
    """Write the figures as JSON to `target`, and print them as a table."""
    if target is not None:
        write_text(target, json.dumps(found, indent=1) + "\n", "--table")
    lines = []
    for name, values in found["summary"].items():
        flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
        if flat:
            lines.append([name, *(str(flat.get(key, "-")) for key in COLUMNS)])
        for way, measures in values.items():
            if isinstance(measures, dict):
                lines.append([name, way, *(str(value) for value in measures.values())])
    kept = lines and len(lines[0]) == 5
    header = ["method", "what is kept", "background MSE x10³", "target word reached", "foreground overlap"]
    sys.stdout.write(table(header if kept else ["method", *COLUMNS.values()], lines) + "\n")
