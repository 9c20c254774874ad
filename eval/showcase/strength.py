"""Does a strength mean the same at any step count? `python -m eval.strength` edits scenes of the embedded model's
domain at several step counts with the same strength, and prints the table of freectl/README.md.

Structure distance, three ways: the structure energy of the last guided step; the energy between input and finished
result, both inverted on one grid of 20 steps whatever the run's was, mean over the guided window; and how the result's
outline, as the judge sees it, overlaps with the input's true one.
"""

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

from eval.bench.world import drawn
from eval.files import check_target, write_text
from eval.scores.mini import outline_iou
from freectl.denoising.sampler import Prompt
from freectl.files.cache import Cache
from freectl.methods.base import Request
from freectl.methods.freecontrol.targets import Analyser, stacked
from freectl.mini import MODEL_DIR
from freectl.mini.domain import ARTWORK
from freectl.mini.export import scenes
from freectl.mini.judge import judge_pictures, load_judge
from freectl.mini.scene import Scene
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics.energies import structure_energy

SEED = 11
GRID = 20


def object_edits(count: int) -> list[tuple[Scene, Scene]]:
    """Scenes, and what each should become: the next scene's object in its place."""
    drawn = list(scenes(count + 1, SEED, ARTWORK))
    return [(one, one.with_words(object=other.object)) for one, other in pairwise(drawn)]


def structure_distance(
    pipe: FreeControlPipeline, pictures: list[Image.Image], results: list[Image.Image], settings: Any
) -> float:
    """Mean structure energy between the inverted inputs and the inverted results."""
    engine = Engine(pipe, cache=Cache())
    request = Request([], Prompt(torch.empty(0)), [""], [], results[0].size, steps=GRID)
    sites = engine.family.structure_sites(engine.network, settings.layers, settings.features)
    analyser = Analyser(engine, request, settings, sites)
    each = [analyser.analysed([(one, "") for one in several], None, None) for several in (pictures, results)]
    inputs, outputs = (stacked(one).coordinates for one in each)
    return float(torch.stack([structure_energy(outputs[site], inputs[site]).mean() for site in inputs]).mean())


def measured(steps: int, strength: float | None, count: int = 8) -> dict[str, Any]:
    """One row of the table; `strength` None is the default preset's, 0 is unguided."""
    pairs = object_edits(count)
    pictures = [drawn(source) for source, _ in pairs]
    pipe = FreeControlPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    overrides = {} if strength is None else {"structure_strength": strength}
    output = pipe(
        [target.caption for _, target in pairs],
        pictures,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(0) for _ in pairs],
        **overrides,
    )
    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), output.images)
    overlaps = [outline_iou(v, source) for v, (source, _) in zip(verdicts, pairs, strict=True)]
    return {
        "steps": steps,
        "strength": output.settings.structure_strength,
        "energy": output.trace[-1]["structure"] if output.trace else None,
        "distance": structure_distance(pipe, pictures, output.images, output.settings),
        "outline_overlap": sum(overlaps) / len(overlaps),
        "edits": count,
        "object_right": sum(v.labels["object"] == t.object for v, (_, t) in zip(verdicts, pairs, strict=True)),
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown lines."""
    yield "| steps | energy, last guided step | energy of the result | outline overlap | object right |"
    yield "|---|---|---|---|---|"
    for row in rows:
        energy = "" if row["energy"] is None else f"{row['energy']:.4f}"
        name = f"{row['steps']}{'' if row['strength'] else ', unguided'}"
        yield (
            f"| {name} | {energy} | {row['distance']:.4f} | {row['outline_overlap']:.3f} "
            f"| {row['object_right']} of {row['edits']} |"
        )


def main(
    steps: Annotated[list[int], typer.Option(help="Step counts; may repeat.")] = [20, 50, 100, 200],  # noqa: B006
    count: Annotated[int, typer.Option(min=1, help="Edits.")] = 8,
    unguided: Annotated[bool, typer.Option(help="Begin with a row of strength 0, 50 steps.")] = True,
    output: Annotated[Path | None, typer.Option(help="Also write the rows here, JSON.")] = None,
) -> None:
    """Measure, and print the table."""
    check_target(output, "--output", picture=False)
    rows = [measured(50, 0.0, count)] if unguided else []
    for number in steps:
        rows.append(measured(number, None, count))
        if output is not None:
            write_text(output, json.dumps(rows, indent=1) + "\n", "--output")
    sys.stdout.write("\n".join(table(sorted(rows, key=lambda row: (row["strength"], row["steps"])))) + "\n")
