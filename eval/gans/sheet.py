"""What a generator of the runs does, as one picture: `python -m eval.gan_sheet --gan-weights NAME --output FILE`.

New scenes: left of the gap objects of the training, right of it those that the plan keeps for the test. Rows: input,
translation, true picture, and the translation back where the weights have that direction.
"""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from PIL import Image

from eval.files import check_target, write_picture
from eval.gans.runs import RUNS
from freectl.mini.export import scenes
from freectl.mini.scene import Scene, render

SIDE, GAP, BETWEEN = 64, 2, 16
"""Pixels; the first is the side of the pictures that the runs train on."""
DRAWN, KNOWN, UNSEEN = 400, 8, 6


def chosen(seed: int, style: str, unseen: list[str]) -> tuple[list[Scene], list[Scene]]:
    """Scenes of objects of the training, each another one, and of unseen objects."""
    drawn = list(scenes(DRAWN, seed, (style,)))
    first = {scene.object: scene for scene in reversed(drawn)}
    known = [first[name] for name in sorted(first) if name not in unseen]
    return known[:KNOWN], [scene for scene in drawn if scene.object in unseen][:UNSEEN]


def sheet(columns: list[list[Image.Image]], split: int) -> Image.Image:
    """Pictures of equal size, one list a column, with a wider gap before column `split`."""
    step = SIDE + GAP
    size = (len(columns) * step - GAP + BETWEEN, len(columns[0]) * step - GAP)
    whole = Image.new("RGB", size, "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            whole.paste(picture, (x * step + (BETWEEN if x >= split else 0), y * step))
    return whole


def main(
    gan_weights: Annotated[str, typer.Option(help="A weights folder of gan_baselines, or shipped weights by name.")],
    output: Annotated[Path, typer.Option(help="Picture to write; its ending says the format.")],
    gan_styles: Annotated[str, typer.Option(help="FROM:TO, what the generators were trained for.")] = "noto:fluent",
    seed: Annotated[int, typer.Option(help="Of the scenes.", min=0)] = 22,
) -> None:
    """Draw scenes, translate them, and write the sheet."""
    from eval.gans.given import parse_styles
    from eval.gans.method import Translator
    from gan_baselines.weights import read_record

    check_target(output, "--output")
    styles = parse_styles(gan_styles)
    there = Translator(gan_weights, "AB")
    back = Translator(gan_weights, "BA") if "BA" in read_record(gan_weights)["generators"] else None
    known, unseen = chosen(seed, styles[0], yaml.safe_load(RUNS.read_text())["data"]["test_objects"])
    columns = []
    for scene in (*known, *unseen):
        picture = render(scene, SIDE)
        made = there(picture)
        columns.append(
            [picture, made, render(scene.with_words(style=styles[1]), SIDE), *([back(made)] if back else [])]
        )
    write_picture(output, sheet(columns, len(known)), "--output", quality=90)
