"""What a batch would be and take, said before it runs: every row checked whole, network rows counted and timed."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.tasks.batch.journal import Line
from freectl.tasks.batch.worker import planned


@dataclass(frozen=True)
class Estimate:
    """Attributes: results that can be made, lines of those that cannot, row forwards, and about how many seconds."""

    results: int
    row_forwards: float
    seconds: float
    errors: list[Line] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """As JSON."""
        about = {
            "results": self.results,
            "row_forwards": round(self.row_forwards, 1),
            "seconds": round(self.seconds, 1),
        }
        return {**about, "failed": len(self.errors), "errors": self.errors}

    @property
    def text(self) -> str:
        """For people."""
        from freectl.semantics.estimate import duration

        bad = f"; {len(self.errors)} cannot be made" if self.errors else ""
        work = f"{self.row_forwards:.0f} row forwards, up to about {duration(self.seconds)}"
        return f"{self.results} pictures, {work}{bad}; nothing was written"

    def raise_first(self) -> None:
        """Raises InputError: some row cannot be used."""
        if self.errors:
            raise InputError(
                "--manifest", f"{len(self.errors)} rows that cannot be used", "rows as `freectl edit` takes"
            )


def estimated(checked: Any, way: Any) -> Estimate:
    """Check every row of `run.check` whole, pictures decoded, and time one row forward of each model.

    Raises:
        FreectlError: a model cannot be loaded.
    """
    from freectl.tasks.edit import shared_by

    errors, results = list(checked.refused), 0
    rows: Counter[Any] = Counter()
    models: dict[Any, Any] = {}
    for one in checked.wanted:
        try:
            plan = planned(one)
        except FreectlError as error:
            errors.append({"row": one.row, "id": one.identity, "output": None, "error": str(error)})
            continue
        results += 1
        if plan.source is not None:
            key = shared_by(plan.options)
            models.setdefault(key, plan)
            rows[key] += _rows(plan)  # type: ignore[assignment]
    seconds = sum(rows[name] * _seconds_per_row(plan) for name, plan in models.items())
    return Estimate(results, sum(rows.values()), seconds / way.workers, errors)


def _rows(plan: Any) -> float:
    from freectl.denoising.cost import rows_in

    return rows_in(plan.method.row_forwards(plan.options.steps, plan.settings))


def _seconds_per_row(plan: Any) -> float:
    from freectl.models.engine import Engine
    from freectl.semantics.estimate import seconds_per_row
    from freectl.tasks.edit import opened

    engine = Engine(opened(plan.options, plan.source)[0])
    return seconds_per_row(engine, plan.options.prompt, plan.options.negative_prompt)
