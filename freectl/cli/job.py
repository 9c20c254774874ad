"""A run of the command line: where its files go, and how it is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freectl.cli.output import Format, cost_text, emit, warn, written_text
from freectl.files.outputs import Outputs, digest


@dataclass(frozen=True)
class Job:
    """One command's run.

    Attributes:
        target: where the result goes. outputs: the files of the command.
        cache: whether inversions and bases are kept. sheet: whether a sheet is written beside the result.
        verbose: whether people are told devices and cost.
        explain: folder for what is seen inside; None = nothing is looked at.
    """

    target: Path
    outputs: Outputs
    cache: bool
    sheet: bool
    form: Format
    verbose: bool
    explain: Path | None = None

    @property
    def progress(self) -> bool:
        """Whether progress is shown."""
        return self.form is not Format.quiet

    def place(self, ending: str, suffix: str | None = None) -> Path:
        """NAME_ENDING beside the target, checked as the target is."""
        path = self.target.with_name(f"{self.target.stem}_{ending}{suffix or self.target.suffix}")
        return self.outputs.check(path)

    def write(self, image: Any, record: dict[str, Any], target: Path, *inputs: Any) -> dict[str, Any]:
        """Write a result; its record with the place, and with a warning where that is another than asked for.

        Args:
            inputs: pictures and texts that the record does not hold, which tell results apart all the same.
        """
        record = {"output": str(target), **record}
        self.outputs.save(image, target, record, digest(record, *inputs))
        return record | {"warnings": [*record["warnings"], *self.outputs.take_notes()]}

    def write_sheet(self, cells: Any, beside: Path, ending: str = "compare") -> Path:
        """Write labelled pictures side by side as NAME_ENDING.png beside a result."""
        from freectl.files.pictures import compare_sheet

        # the pictures make it what it is: labels tell seconds, which differ from run to run
        identity = digest("sheet", *(picture for _, picture in cells))
        path = beside.with_name(f"{beside.stem}_{ending}.png")
        return self.outputs.save(compare_sheet(cells), path, identity=identity)

    def tell(self, result: Any, record: dict[str, Any], beside: list[Path], advice: str = "") -> None:
        """Print a finished run: its record as JSON; for people warnings, files, and what to try next."""
        warn(record["warnings"], self.form)
        lines = [str(path) for path in beside]
        if self.verbose:
            lines += [", ".join(result.notes), cost_text(record["cost"])]
        emit(record, "\n".join([*lines, written_text(record, result.image.size, advice)]), self.form)
