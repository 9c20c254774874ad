"""What the README shows: the input pictures, the edits of its commands, and ten edits with exact answers.

`python -m eval.showcase inputs` writes `prompts/images/*.png`, `edits` the results of the README's commands, `ten` the
sheet and the table of ten edits next to SDEdit (plain diffusers img2img on the same model), `control` a sketch and a
silhouette as conditions of a picture in each artwork style. `methods` writes the sheet of all methods, `ten --methods
all` their table on the ten edits, `keep` the table of what keeping the background does.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from eval.bench.world import drawn
from eval.files import PROMPTS, check_target, read_picture, write_picture, write_text
from eval.scores.mini import outline_iou
from eval.showcase.edits import Case, judged, plan, ten_cases
from freectl.errors import InputError
from freectl.files.pictures import compare_sheet
from freectl.mini import MODEL_DIR
from freectl.mini.domain import ARTWORK
from freectl.mini.scene import Scene
from freectl.tasks import edit as editing

IMAGES = PROMPTS / "images"
app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command()
def inputs() -> None:
    """Write the four input pictures and the two conditions."""
    for name, fields in (plan()["inputs"] | plan()["control"]["conditions"]).items():
        scene = Scene(**{**fields, "shift": tuple(fields["shift"])})
        write_picture(IMAGES / f"{name}.png", drawn(scene))


@app.command()
def edits() -> None:
    """Write the results of the README's commands, input and result side by side."""
    pictures = []
    for name, prompt in plan()["edits"]:
        result = editing.edit(IMAGES / f"{name}.png", prompt)
        pictures += [(f"{name}.png", result.source), (prompt, result.image)]
    write_picture(IMAGES / "edits.png", compare_sheet(pictures, columns=4))


@app.command()
def control(output: Path = IMAGES / "control.png") -> None:
    """Write the control sheet: each condition, and what `freectl control` makes of it; print what the judge sees."""
    from freectl.mini.judge import judge_pictures, load_judge
    from freectl.tasks.control import control as under_control

    check_target(output, "--output")
    shown, cells, rows = plan()["control"], [], []
    judge = load_judge(MODEL_DIR / "judge")
    for fields in shown["conditions"].values():
        scene = Scene(**{**fields, "shift": tuple(fields["shift"])})
        condition = drawn(scene)
        cells.append((scene.caption, condition))
        for style in ARTWORK:
            target = scene.with_words(style=style, background=shown["background"])
            result = under_control(
                condition,
                target.caption,
                concept=scene.object,
                source_prompt=scene.caption,
                **shown["settings"],
            ).image
            cells.append((target.caption, result))
            verdict = judge_pictures(judge, [result])[0]
            iou = round(outline_iou(verdict, scene), 3)
            rows.append({"condition": scene.caption, "prompt": target.caption, "seen": verdict.labels, "iou": iou})
    write_picture(output, compare_sheet(cells, columns=1 + len(ARTWORK)), "--output")
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


def sdedit(strength: float) -> Callable[[Case], Image.Image]:
    """Plain diffusers img2img on the embedded model."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    from freectl.models.families import MINI

    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def run(case: Case) -> Image.Image:
        return pipe(
            case.target.caption,
            drawn(case.source),
            strength=strength,
            num_inference_steps=50,
            guidance_scale=MINI.guidance_scale,
            generator=torch.Generator().manual_seed(0),
        ).images[0]

    return run


def freecontrol(**settings: Any) -> Callable[[Case], Image.Image]:
    """FreeControl with the default preset; `settings` override it."""

    def run(case: Case) -> Image.Image:
        return editing.edit(drawn(case.source), case.target.caption, **settings).image

    return run


@app.command()
def methods(output: Path = IMAGES / "methods.png", steps: int = 50) -> None:
    """Write the sheet of all methods on the fox: what `freectl edit --method all --compare` writes."""
    from freectl.tasks import compare as comparing

    check_target(output, "--output")
    shown = plan()["methods"]
    entries = comparing.compare(
        IMAGES / f"{shown['input']}.png", shown["prompt"], source_prompt=shown["source_prompt"], steps=steps
    )
    sheet = comparing.sheet(entries, read_picture(IMAGES / f"{shown['input']}.png"), columns=5)
    write_picture(output, sheet, "--output")
    for one in entries:
        sys.stdout.write(f"{one.label}{f' ({one.error})' if one.error else ''}\n")


@app.command()
def keep(methods: str = "all", steps: int = 50, edits: int = 6, table: Path | None = None) -> None:
    """Print the background error of the methods with and without --keep and --keep-background."""
    from eval.showcase.methods import kept_of_all, tell

    check_target(table, "--table", picture=False)
    tell(kept_of_all(methods, steps, edits), table)


@app.command()
def ten(
    output: Path = IMAGES / "ten.png",
    table: Path | None = None,
    methods: str | None = None,
    steps: int = 50,
    model: str = "mini",
) -> None:
    """Run the ten edits with FreeControl and SDEdit; write the sheet, print the table as JSON.

    With `--methods all`, or names with commas between, those methods run instead, told the source prompt too; their
    sheet goes to ten_methods.png beside `--output`, and the table is printed for reading; `--model` is theirs.
    """
    check_target(output, "--output")
    check_target(table, "--table", picture=False)
    if methods is not None:
        from eval.showcase.methods import tell, ten_of_all

        tell(ten_of_all(methods, steps, output.with_name(f"{output.stem}_methods.png"), model), table)
        return
    if model != "mini":
        raise InputError("--model", f"'{model}' without --methods", "mini, or --methods all")
    cases = ten_cases()
    runs = {"freecontrol": freecontrol(), "sdedit 0.5": sdedit(0.5), "sdedit 0.75": sdedit(0.75)}
    results = {name: [run(case) for case in cases] for name, run in runs.items()}
    pictures = []
    for case, result in zip(cases, results["freecontrol"], strict=True):
        pictures += [(case.source.caption, drawn(case.source)), (case.target.caption, result)]
    write_picture(output, compare_sheet(pictures, columns=4), "--output")
    rows = {name: judged(cases, found) for name, found in results.items()}
    summary = {
        name: {
            "reached": sum(r["reached"] for r in found),
            "all_right": sum(r["all_right"] for r in found),
            "mean_iou": round(sum(r["iou"] for r in found) / len(found), 3),
        }
        for name, found in rows.items()
    }
    text = json.dumps({"summary": summary, "rows": rows}, indent=1)
    if table is not None:
        write_text(table, text + "\n", "--table")
    sys.stdout.write(text + "\n")
