"""Where semantic bases come from: beside the model, from the cache, or built now."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from freectl.denoising.path import Path as NoisePath
from freectl.denoising.sampler import Lane
from freectl.errors import FreectlError
from freectl.files.cache import content_key
from freectl.files.data import prompts_file
from freectl.models import fingerprint
from freectl.models.engine import Engine
from freectl.semantics import analysis
from freectl.semantics.analysis import TOLERANCE
from freectl.semantics.bases import SemanticBases
from freectl.semantics.estimate import announce

SEED_BATCH = 10
ANALYSIS_STEPS = 50
"""Bases are made on this grid; runs with other step counts take the nearest timestep."""
PUBLISHED_STOP = 0.6
"""The published window, which bases cover unless a run needs more."""


@dataclass(frozen=True)
class SeedPrompts:
    """What seed pictures are asked for: texts in turn, one negative prompt, and the concept they stand for."""

    texts: tuple[str, ...]
    negative: str
    concept: str


def seed_prompts(family: str, concept: str | None, prompt: str) -> SeedPrompts:
    """Seed prompts of a concept; without one, the family's general prompts, or else the target prompt itself."""
    entry = yaml.safe_load(prompts_file("seeds.yaml").read_text())[family]
    if concept:
        return SeedPrompts((entry["template"].format(concept=concept),), entry["negative"], concept)
    if "any" in entry:
        return SeedPrompts(tuple(entry["any"]), entry["negative"], "*")
    return SeedPrompts((prompt,), entry["negative"], prompt)


@dataclass(frozen=True)
class BasesSpec:
    """What a set of bases is made of.

    Attributes:
        prompts: see `SeedPrompts`. seeds: N_s. components: N_b. features: "sampling" or "inversion".
        stop: fraction of the analysis grid that is covered, from the noisy end.
        sites: tapped modules.
        steps: of the grid on which the seed pictures are sampled.
    """

    prompts: SeedPrompts
    seeds: int
    components: int
    features: str
    stop: float
    sites: tuple[str, ...]
    steps: int = ANALYSIS_STEPS

    def metadata(self, engine: Engine) -> dict[str, Any]:
        """All ingredients; two bases with equal metadata are equal."""
        model = engine.model_key()
        seldom = {name: model[name] for name in ("words", "attention_kwargs") if model[name] not in ("[]", "None")}
        return {
            "unet": fingerprint.fingerprint(engine.network),
            "text_encoder": fingerprint.combined(engine.text.encoders),
            "family": engine.family.name,
            "concept": self.prompts.concept,
            "prompts": list(self.prompts.texts),
            "negative": self.prompts.negative,
            "seeds": self.seeds,
            "components": self.components,
            "features": self.features,
            "steps": self.steps,
            "stop": self.stop,
            "guidance_scale": engine.family.guidance_scale,
            "scheduler": model["scheduler"],
            "size": engine.base_size,
            "dtype": str(engine.dtype),
            "sites": list(self.sites),
            **seldom,
        }


def needed_stop(engine: Engine, guided: Sequence[float], steps: int = ANALYSIS_STEPS) -> float:
    """Fraction of the analysis grid that bases for these timesteps cover: the published one if near enough, else 1."""
    grid = engine.timesteps(steps, size=(engine.base_size, engine.base_size))
    last = grid[max(1, round(PUBLISHED_STOP * len(grid))) - 1]
    return PUBLISHED_STOP if min(guided, default=last) >= last - TOLERANCE else 1.0


def key_of(metadata: dict[str, Any]) -> str:
    """Cache key of bases with this metadata."""
    return content_key(what="bases", **{k: v for k, v in metadata.items() if k != "key"})


def obtain(engine: Engine, spec: BasesSpec, *, shipped: Path | None = None) -> SemanticBases:
    """Bases for a run: those beside the model if they fit, else the cache's, else built and kept."""
    if spec.prompts.concept == "*" and shipped is not None:
        for bases in shipped_with(shipped, engine):
            if _fits(bases, spec):
                engine.cost.cached["bases"] = True
                return bases
    metadata = spec.metadata(engine)
    key = key_of(metadata)
    tensors, stored = engine.cached_with_metadata("bases", key, lambda: _build(engine, spec, metadata | {"key": key}))
    return SemanticBases.from_tensors(tensors, stored)


def build_rows(spec: BasesSpec, steps: int) -> int:
    """Rows that a build on a grid of `steps` takes; the last ones of an inversion stop early and count as whole."""
    guided = max(1, round(spec.stop * steps))
    if spec.features == "inversion":
        return spec.seeds * (2 * steps + steps + guided)
    return spec.seeds * 2 * guided


def _build(engine: Engine, spec: BasesSpec, metadata: dict[str, Any]) -> tuple[dict, dict]:
    path = engine.path(spec.steps, size=(engine.base_size, engine.base_size))
    announce(engine, spec.prompts, spec.seeds, build_rows(spec, len(path.times)))
    guided = path.times[: max(1, round(spec.stop * len(path.times)))]
    grams = _seed_grams(engine, spec, path, guided)
    return analysis.solve(grams, spec.components, metadata).tensors(), metadata


def _seed_grams(engine: Engine, spec: BasesSpec, path: NoisePath, guided: Sequence[float]) -> dict[analysis.Site, Any]:
    """Gram matrices of the seed pictures' features; the texts take turns, seed i has generator seed i."""
    prompts, by_inversion = spec.prompts, spec.features == "inversion"
    grams: dict[analysis.Site, Any] = {}
    size = (engine.base_size, engine.base_size)
    batches = math.ceil(spec.seeds / SEED_BATCH)
    steps_each = 2 * len(path.times) if by_inversion else path.times.index(min(guided)) + 1
    with engine.progress(batches * steps_each, "semantic bases") as bar:
        for first in range(0, spec.seeds, SEED_BATCH):
            numbers = range(first, min(first + SEED_BATCH, spec.seeds))
            asked = [prompts.texts[i % len(prompts.texts)] for i in numbers]
            prompt = engine.encode_prompt(asked, [prompts.negative] * len(numbers), size=size)
            noise = engine.noise(size, [torch.Generator().manual_seed(i) for i in numbers])
            analysis.seed_features(
                engine.denoiser,
                path,
                Lane(noise, prompt, engine.family.guidance_scale),
                path.times,
                guided,
                spec.sites,
                grams,
                by_inversion=by_inversion,
                on_step=bar.update,
            )
    return grams


def _fits(bases: SemanticBases, spec: BasesSpec) -> bool:
    have: dict[str, Any] = bases.metadata
    covered = set(spec.sites) <= set(have.get("sites", ())) and have.get("stop", 0) >= spec.stop
    made_alike = have.get("features") == spec.features and have.get("steps", ANALYSIS_STEPS) == spec.steps
    return covered and made_alike and have.get("components", 0) >= spec.components


def shipped_with(folder: Path, engine: Engine) -> list[SemanticBases]:
    """Bases that lie beside a model and were made from its weights."""
    found = []
    for path in sorted(folder.glob("bases/*.safetensors")):
        try:
            bases = SemanticBases.load(path)
        except (FreectlError, OSError):
            continue
        if bases.metadata.get("unet") == fingerprint.fingerprint(engine.network):
            found.append(bases)
    return found
