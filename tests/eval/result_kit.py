"""Made-up results: what a run writes, without a run; and the report of them."""

from typing import Any

from typer import Typer
from typer.testing import CliRunner, Result

from eval.bench.cases import Bench
from eval.report.command import report

VARIANTS = ("sdedit[strength=0.5]", "sdedit[strength=0.8]", "freecontrol")


def about(bench: Bench) -> dict[str, Any]:
    """run.json of made-up results."""
    environment = {"processor": "a <processor>", "cpu_count": 2, "memory_mb": 1000, "devices": {}, "packages": {}}
    environment |= {"freectl": "0", "python": "3", "platform": "here"}
    same = {"bench": bench.name, "layout": bench.layout, "digest": bench.digest, "about": bench.about}
    return same | {"model": "mini", "weights": "0" * 64, "steps": 50, "seed": 0, "dtype": "fp32",
                   "environment": environment}  # fmt: skip


def line(case: Any, variant: str, scores: dict[str, Any]) -> dict[str, Any]:
    """One result line with scores, as `eval.run.workshop.Workshop` writes it."""
    method, _, swept = variant.partition("[")
    cost = {"row_forwards": 100.0, "row_backwards": 0, "peak_memory_mb": 10.0}
    return {
        "case": case.key,
        "kind": case.kind,
        "variant": variant,
        "curve": method,
        "method": method,
        "preset": "default",
        "given": {},
        "swept": dict([swept.rstrip("]").split("=")]) if swept else {},
        "source_prompt": case.source_prompt,
        "prompt": case.prompt,
        "seed": 0,
        "steps": 50,
        "settings": {},
        "cost": cost | {"seconds": {"total": 2.5, "load": 0.5}},
        "seconds": 2.0,
        "scores": scores,
        "facts": {"seen": "a <word>"},
        "networks": {"judge": "toy"},
        "notes": [],
        "picture": f"pictures/{method}{swept.strip('=]')}/{case.key}.png",
        "warnings": [],
    }


def invoke(*arguments: str) -> Result:
    """Run `python -m eval.report` with these arguments."""
    app = Typer()
    app.command()(report)
    return CliRunner().invoke(app, list(arguments))
