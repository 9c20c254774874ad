"""A run as plain values: what is asked for, what cannot work, which tasks that makes, on which machine."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.bench.cases import Bench, Case, paired
from eval.gans import GAN
from eval.run.checked import check
from eval.run.variants import Variant
from freectl.errors import InputError, unknown

Task = tuple[str, str]
"""(case key, variant label)."""
BESIDE = {"judge", "clip", "controlnet", "t2i-adapter", "flow", "cascade"}
"""Folders of the embedded model that no method of all reads, or that are models of their own: they may be added without
making results others."""


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
        from freectl.methods import CONTROL
        from freectl.pipelines import loading
        from freectl.pipelines.trained import check_trained

        source = loading.resolve_model(self.model)
        loading.resolve_dtype(self.dtype, loading.resolve_device(self.device)[0])
        for variant in self.variants:
            if variant.method == GAN:
                self._check_gan(variant, bench)
                continue
            asked = check(variant, bench.is_control, bench.is_paired)
            known = {case.kind for case in bench.cases}
            for kind in asked.kinds:
                if kind not in known:
                    raise unknown("--set kinds", kind, known)
            if variant.method in CONTROL:
                check_trained(asked.method, asked.settings, source)

    def _check_gan(self, variant: Variant, bench: Bench) -> None:
        from eval.gans.given import parse_styles, parse_weights

        if bench.is_control:
            raise InputError("--methods", "gan, which reads no words", "methods of `freectl control`")
        if variant.values:
            raise InputError("--set gan", str(variant.values), "nothing: a trained generator has no settings")
        parse_weights(list(self.gan_weights))
        if parse_styles(self.gan_styles) is None and bench.layout == "mini" and not self.gan_anything:
            raise InputError("--gan-styles", "nothing", "FROM:TO, the styles that the generators were trained for")

    def tasks(self, cases: Sequence[Case]) -> list[Task]:
        """Pairs that can be asked for; all variants of a case in a row, kinds in turn, so that a part is balanced."""
        from eval.gans.given import applies, parse_styles

        control, pairs = any(case.is_condition for case in cases), paired(cases)
        asked = {one.label: None if one.method == GAN else check(one, control, pairs) for one in self.variants}
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
    from freectl.pipelines.loading import resolve_model

    source = resolve_model(model)
    if source.kind == "hub":
        return source.path
    path = Path(source.path)
    if source.kind == "file":
        files = [path]
    else:
        files = [file for file in sorted(path.rglob("*")) if file.suffix in (".json", ".safetensors", ".txt")]
        files = [file for file in files if file.relative_to(path).parts[0] not in BESIDE]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """Versions, processor and memory: what seconds and last digits depend on; no paths."""
    from freectl.files.environment import report

    kept = ("freectl", "python", "platform", "packages", "devices", "cpu_count", "memory_mb")
    found = report()
    return {"processor": _processor(), **{key: found[key] for key in kept}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
