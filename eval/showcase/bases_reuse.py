"""Bases of one concept used for another: what reuse across concepts costs, on the embedded model.

`python -m eval.bases_reuse` turns the same scenes into a dog, a fox and a car, guided in the concept's own bases, in
those of a cat, in the general ones, in random directions, and not at all; and prints a Markdown table: how much of the
concept's own subspace the bases share, how often the judge sees the concept, and how well the result's foreground
overlaps the input's. Bases and inversions are kept in the cache.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from eval.bench.world import drawn
from eval.scores.mini import outline_iou
from freectl.files.cache import Cache
from freectl.mini import MODEL_DIR
from freectl.mini.domain import ARTWORK
from freectl.mini.export import scenes
from freectl.mini.judge import judge_pictures, load_judge
from freectl.mini.scene import Scene
from freectl.models.engine import Engine
from freectl.pipelines.loading import load_pipeline, resolve_model
from freectl.semantics import store
from freectl.semantics.bases import SemanticBases
from freectl.semantics.lookup import EMBEDDED, load

DONOR = "cat"
SEED = 4001
SEEDS, STORED = 20, 64


def concept_bases(engine: Engine, concept: str) -> SemanticBases:
    """Bases of one concept by the default settings."""
    own = engine.family.freecontrol
    sites = tuple(engine.family.structure_sites(engine.network, own["layers"], own["features"]))
    prompts = store.seed_prompts(engine.family.words, concept, "")
    spec = store.BasesSpec(prompts, SEEDS, STORED, "sampling", store.PUBLISHED_STOP, sites)
    return store.obtain(engine, spec)


def random_bases(like: SemanticBases) -> SemanticBases:
    """Orthonormal random directions about the means of other bases."""
    generator = torch.Generator().manual_seed(0)
    entries = {}
    for key, basis in like.items():
        count, channels = basis.components.shape
        turned = torch.linalg.qr(torch.randn(channels, count, generator=generator)).Q.T.contiguous()
        entries[key] = replace(basis, components=turned)
    return SemanticBases(entries, like.metadata)


def shared_subspace(one: SemanticBases, other: SemanticBases, components: int) -> float:
    """Mean squared cosine between the spans of the first components, 0 to 1, over the bases that both have."""
    found = [
        one[key].components[:components] @ other[key].components[:components].T for key in one if key in other.entries
    ]
    return float(torch.stack([product.square().sum() / components for product in found]).mean())


def sources(concept: str, count: int) -> list[Scene]:
    """Scenes that show something else."""
    drawn: Iterator[Scene] = iter(scenes(4 * count, SEED, ARTWORK))
    return list(islice((scene for scene in drawn if scene.object != concept), count))


def measured(results: list[Any], given: list[Scene], concept: str) -> tuple[float, float]:
    """Share of pictures in which the judge sees the concept, and mean overlap with the inputs' true masks."""
    verdicts = judge_pictures(load_judge(MODEL_DIR / "judge"), results)
    reached = [verdict.labels["object"] == concept for verdict in verdicts]
    overlap = [outline_iou(verdict, scene) for verdict, scene in zip(verdicts, given, strict=True)]
    return sum(reached) / len(reached), sum(overlap) / len(overlap)


def main(concepts: str = "dog,fox,car", pictures: int = 8) -> None:
    """Print the table."""
    pipe = load_pipeline(resolve_model("mini"), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    engine, cache = Engine(pipe, cache=Cache()), Cache()
    components = int(engine.family.freecontrol["components"])
    donor, general = concept_bases(engine, DONOR), load(EMBEDDED)
    lines = [
        "| target | bases | shared with its own | judge sees it | overlap with the input |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for concept in concepts.split(","):
            given, own = sources(concept, pictures), concept_bases(engine, concept)
            every = {"its own": own, f"of {DONOR}": donor, "general": general, "random directions": random_bases(own)}
            for name, bases in {**every, "unguided": own}.items():
                path = Path(folder) / "bases.safetensors"
                bases.save(path)
                extra = {"structure_strength": 0.0} if name == "unguided" else {}
                output = pipe(
                    [scene.with_words(object=concept).caption for scene in given],
                    [drawn(scene) for scene in given],
                    bases=str(path),
                    cache=cache,
                    **extra,
                )
                reached, overlap = measured(output.images, given, concept)
                shared = "" if name == "unguided" else f"{shared_subspace(own, bases, components):.2f}"
                lines.append(f"| {concept} | {name} | {shared} | {reached:.0%} | {overlap:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")
