"""A run as plain values, and the workshop that does it in one process: model, runners and networks, loaded once."""

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.cases import Bench, Case
from eval.store import Store
from eval.variants import GAN, Variant, check
from freectl.errors import InputError

Task = tuple[str, str]
"""(case key, variant label)."""
EVALUATION_ONLY = {"judge", "clip"}
"""Folders of the embedded model that no method reads."""


@dataclass(frozen=True)
class Plan:
    """What is run. Everything in it can be handed to another process.

    Attributes:
        bench: name, data folder, folder of conditions.
        reuse: keep inversions on disk, so that a picture's later edits cost less.
        gan_weights: `[NAME=]FOLDER` texts. gan_styles: "FROM:TO", or None.
        clip: that scores; None is the benchmark's own.
        gan_anything: ask generators also for what they were not trained for.
    """

    bench: tuple[str, Path | None, Path | None]
    variants: tuple[Variant, ...]
    model: str = "mini"
    steps: int = 50
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 1
    reuse: bool = False
    gan_weights: tuple[str, ...] = ()
    gan_styles: str | None = None
    clip: str | None = None
    gan_anything: bool = False

    def check(self, bench: Bench) -> None:
        """Find what cannot work before any weights load.

        Raises:
            InputError: unknown model, device, method, preset or setting; unusable GAN weights.
        """
        from freectl import loading

        loading.resolve_model(self.model)
        loading.resolve_dtype(self.dtype, loading.resolve_device(self.device)[0])
        if self.clip is not None:
            from eval.metrics.clip import check_clip

            check_clip(self.clip)
        for variant in self.variants:
            if variant.method == GAN:
                self._check_gan(variant, bench)
            else:
                check(variant)

    def _check_gan(self, variant: Variant, bench: Bench) -> None:
        from eval.gan_adapter import parse_styles, parse_weights

        if variant.values:
            raise InputError("--set gan", str(variant.values), "nothing: a trained generator has no settings")
        parse_weights(list(self.gan_weights))
        if parse_styles(self.gan_styles) is None and bench.layout == "mini" and not self.gan_anything:
            raise InputError("--gan-styles", "nothing", "FROM:TO, the styles that the generators were trained for")

    def tasks(self, cases: Sequence[Case]) -> list[Task]:
        """Pairs that can be asked for; all variants of a case in a row, kinds in turn, so that a part is balanced."""
        from eval.gan_adapter import applies, parse_styles

        asked = {one.label: None if one.method == GAN else check(one) for one in self.variants}
        styles = parse_styles(self.gan_styles)

        def fits(label: str, case: Case) -> bool:
            checked = asked[label]
            if checked is None:
                return self.gan_anything or applies(case, styles)
            return checked.applies(case)

        by_kind: dict[str, list[Case]] = {}
        for case in cases:
            by_kind.setdefault(case.kind, []).append(case)
        ranked = [(rank, case) for own in by_kind.values() for rank, case in enumerate(own)]
        ranked.sort(key=lambda pair: pair[0])
        return [(case.key, label) for _, case in ranked for label in asked if fits(label, case)]

    def about(self, bench: Bench) -> dict[str, Any]:
        """What run.json says of this run."""
        return {
            "bench": bench.name,
            "layout": bench.layout,
            "about": bench.about,
            "digest": bench.digest,
            "model": self.model,
            "weights": weights_digest(self.model),
            "steps": self.steps,
            "seed": self.seed,
            "dtype": self.dtype,
            "environment": machine(),
        }


def weights_digest(model: str) -> str:
    """sha256 over the files that a run depends on, or the hub id."""
    from freectl.loading import resolve_model

    source = resolve_model(model)
    if source.kind == "hub":
        return source.path
    path = Path(source.path)
    if source.kind == "file":
        files = [path]
    else:
        files = [file for file in sorted(path.rglob("*")) if file.suffix in (".json", ".safetensors", ".txt")]
        files = [file for file in files if file.relative_to(path).parts[0] not in EVALUATION_ONLY]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """Versions, processor and memory: what seconds and last digits depend on; no paths."""
    from freectl.environment import report

    kept = ("freectl", "python", "platform", "packages", "devices", "cpu_count", "memory_mb")
    found = report()
    return {"processor": _processor(), **{key: found[key] for key in kept}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Workshop:
    """One process's model, runners and scorer; each is loaded when it is first needed.

    Args:
        bench: read anew from the plan if None.
        scorer: see `eval.scoring`; made for the benchmark if None.
    """

    def __init__(self, plan: Plan, store: Store, bench: Bench | None = None, scorer: Any = None) -> None:
        from eval.manifests import load_bench

        self.plan, self.store = plan, store
        self.bench = bench or load_bench(*plan.bench)
        self._given_scorer = scorer
        self._variants = {one.label: one for one in plan.variants}
        self._runners: dict[str, Any] = {}

    @cached_property
    def scorer(self) -> Any:
        """What measures the results."""
        from eval.scoring import scorer_for

        return self._given_scorer or scorer_for(self.bench.layout, self.plan.device, self.plan.clip)

    @cached_property
    def model(self) -> Any:
        """The diffusion model."""
        from eval.runners import load_model

        plan = self.plan
        return load_model(plan.model, plan.steps, plan.seed, device=plan.device, dtype=plan.dtype, reuse=plan.reuse)

    def _runner(self, label: str) -> Any:
        if label not in self._runners:
            variant = self._variants[label]
            if variant.method == GAN:
                from eval.gan_adapter import GanRunner, parse_weights
                from eval.gan_method import Translator

                folder = parse_weights(list(self.plan.gan_weights))[variant.preset]
                self._runners[label] = GanRunner(Translator(folder, seed=self.plan.seed))
            else:
                from eval.runners import DiffusionRunner

                self._runners[label] = DiffusionRunner(self.model, check(variant))
        return self._runners[label]

    def do(self, task: Task) -> dict[str, Any]:
        """Run one case: its result line, its picture written; or `{"case", "variant", "failed"}` with the reason."""
        case, variant = self.bench[task[0]], self._variants[task[1]]
        try:
            runner = self._runner(task[1])
            started = time.perf_counter()
            made = runner.run(case)
            seconds = time.perf_counter() - started
            measured = self.scorer(case, made.image)
            self.keep_references(case)
            picture = self.store.save_picture(f"pictures/{variant.folder}/{case.key}.png", made.image)
        except Exception as error:  # one case's failure must not end a night's run; it is told and tried again
            return {"case": case.key, "variant": variant.label, "failed": f"{type(error).__name__}: {error}"}
        return {
            "case": case.key,
            "kind": case.kind,
            "variant": variant.label,
            "curve": variant.curve,
            "method": variant.method,
            "preset": variant.preset,
            "given": variant.values,
            "swept": variant.swept,
            "source_prompt": case.source_prompt,
            "prompt": case.prompt,
            "seed": self.plan.seed,
            "steps": self.plan.steps,
            "settings": plain(made.settings),
            "cost": made.cost,
            "seconds": round(seconds, 3),
            **scored_part(measured, self.scorer),
            "picture": picture,
            "warnings": made.warnings,
        }

    def keep_references(self, case: Case) -> None:
        """Store the case's input and exact answer beside the results, so that a report needs nothing else."""
        pictures = {"inputs": case.picture}
        if case.scenes is not None:
            from freectl.mini.scene import render

            target = case.scenes[1]
            pictures["answers"] = lambda: render(target)
        for folder, read in pictures.items():
            relative = f"{folder}/{case.key}.png"
            if not (self.store.folder / relative).exists():
                self.store.save_picture(relative, read())


def scored_part(found: Any, scorer: Any) -> dict[str, Any]:
    """The part of a result line that a scorer makes: scores, facts, networks, notes."""
    return {"scores": found.scores, "facts": found.facts, "networks": scorer.networks, "notes": scorer.notes}


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""
    return json.loads(json.dumps(dict(settings), default=str))
