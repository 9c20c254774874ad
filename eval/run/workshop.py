"""Where a plan's tasks are done, in one process: model, runners and networks, each loaded once."""

import json
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from eval.bench.cases import Bench, Case
from eval.gans import GAN
from eval.results.store import Store
from eval.run.checked import check
from eval.run.plan import Plan, Task
from freectl.methods import OUTSIDE


class Workshop:
    """One process's model, runners and scorer; each is loaded when it is first needed.

    Args:
        bench: read anew from the plan if None.
        scorer: see `eval.scores.scoring`; made for the benchmark if None.
    """

    def __init__(self, plan: Plan, store: Store, bench: Bench | None = None, scorer: Any = None) -> None:
        from eval.bench.manifests import load_bench

        self.plan, self.store = plan, store
        self.bench = bench or load_bench(*plan.bench, plan.model)
        self._given_scorer = scorer
        self._variants = {one.label: one for one in plan.variants}
        self._runners: dict[str, Any] = {}

    @cached_property
    def scorer(self) -> Any:
        """What measures the results."""
        from eval.scores.scoring import scorer_for

        return self._given_scorer or scorer_for(self.bench.layout, self.plan.device, self.plan.clip)

    @cached_property
    def model(self) -> Any:
        """The diffusion model."""
        from eval.run.runners import load_model

        plan = self.plan
        return load_model(plan.model, plan.steps, plan.seed, device=plan.device, dtype=plan.dtype, reuse=plan.reuse)

    def _runner(self, label: str) -> Any:
        if label not in self._runners:
            variant = self._variants[label]
            if variant.method == GAN:
                from eval.gans.given import parse_weights
                from eval.gans.method import Translator
                from eval.run.gan_runner import GanRunner

                folder = parse_weights(list(self.plan.gan_weights))[variant.preset]
                self._runners[label] = GanRunner(Translator(folder, seed=self.plan.seed))
            elif variant.method in OUTSIDE:
                from eval.run.gan_runner import OutsideRunner

                self._runners[label] = OutsideRunner(check(variant), self.plan.seed)
            else:
                from eval.run.runners import ControlRunner, DiffusionRunner

                kind = ControlRunner if self.bench.is_control else DiffusionRunner
                self._runners[label] = kind(self.model, check(variant, self.bench.is_control, self.bench.is_paired))
        return self._runners[label]

    def do(self, task: Task) -> dict[str, Any]:
        """Run one case: its result line, its picture written; or `{"case", "variant", "failed"}` with the reason.

        Raises:
            FreectlError: model, generator or scorer cannot be loaded, or nothing can be written: no case would go.
        """
        case, variant = self.bench[task[0]], self._variants[task[1]]
        scorer, runner = self.scorer, self._runner(task[1])
        try:
            started, worked = time.perf_counter(), time.process_time()
            made = runner.run(case)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
            measured = scorer(case, made.image)
        except Exception as error:  # one case's failure must not end a night's run; it is told and tried again
            return {"case": case.key, "variant": variant.label, "failed": f"{type(error).__name__}: {error}"}
        self.keep_references(case)
        picture = self.store.save_picture(f"pictures/{variant.folder}/{case.key}.png", made.image)
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
            "cpu_seconds": round(cpu_seconds, 3),  # of all threads: other work on the machine hardly changes them
            **scored_part(measured, scorer),
            "picture": picture,
            "warnings": made.warnings,
        }

    def keep_references(self, case: Case) -> None:
        """Store the case's input and exact answer beside the results, so that a report needs nothing else."""
        shown = case.picture()
        from eval.bench.mini_files import answer

        for folder, read in (("inputs", lambda: shown), ("answers", lambda: answer(case, shown.width))):
            relative = f"{folder}/{case.key}.png"
            if not (self.store.folder / relative).exists() and (picture := read()) is not None:
                self.store.save_picture(relative, picture)


def scored_part(found: Any, scorer: Any) -> dict[str, Any]:
    """The part of a result line that a scorer makes: scores, facts, networks, notes."""
    return {"scores": found.scores, "facts": found.facts, "networks": scorer.networks, "notes": scorer.notes}


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""
    return json.loads(json.dumps(dict(settings), default=str))
