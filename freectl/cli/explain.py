"""`--explain DIR`: what was seen inside a run, as DIR/NAME_explained.png and .json."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from freectl.cli.job import Job
from freectl.files.outputs import Outputs, digest


@dataclass
class Explaining:
    """Runs a plan, and watches it where a folder is given.

    Attributes:
        folder: where sheet and JSON go; None = nothing is looked at.
        seen: what was, behind `run`.
    """

    folder: Path | None
    outputs: Outputs
    seen: Any = None

    @classmethod
    def of(cls, job: Job, checked: Any) -> Self:
        """Checked before anything runs.

        Raises:
            InputError: the folder cannot be used, or the method has nothing to show.
        """
        if job.explain is None:
            return cls(None, job.outputs)
        from freectl.files.paths import made_folder
        from freectl.tasks.explain import check

        check(checked)
        folder = made_folder(job.explain, "--explain")
        job.outputs.check(folder / f"{job.target.stem}_explained.png", "--explain")
        job.outputs.check_file(folder / f"{job.target.stem}_explained.json", ".json", "a .json file", "--explain")
        return cls(folder, job.outputs)

    def run(self, run: Callable[..., Any], checked: Any, job: Job) -> Any:
        """The result of `run(checked)`, the same whether it is watched or not."""
        if self.folder is None:
            return run(checked, cache=job.cache, progress=job.progress)
        from freectl.tasks.explain import run as watched

        self.seen = watched(checked, cache=job.cache, progress=job.progress)
        return self.seen.result

    def write(self, record: dict[str, Any]) -> list[Path]:
        """Write sheet and JSON, named after the result; the sheet's place, if any."""
        if self.folder is None:
            return []
        from freectl.files.record import atomic_write, dumps
        from freectl.tasks.explain_sheet import facts, sheet

        path = self.folder / f"{Path(record['output']).stem}_explained.png"
        drawn = self.outputs.save(sheet(self.seen), path, identity=digest("explained", record), option="--explain")
        with atomic_write(drawn.with_suffix(".json")) as file:
            file.write(f"{dumps(facts(self.seen) | {'picture': str(drawn)})}\n".encode())
        return [drawn]
