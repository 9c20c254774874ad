"""What a run says: JSON lines, optional trackers, bounded curves, progress on stderr."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from gan_baselines.errors import InputError
from gan_baselines.files import replace_text

CURVE_POINTS = 400


class Curves:
    """Loss curves of at most `CURVE_POINTS` points: when full, every second goes and new ones come half as often."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[dict[str, float]] = []
        self._stride, self._seen = 1, 0

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take in one logged point."""
        if self._seen % self._stride == 0:
            self.steps.append(step)
            self.values.append(values)
            if len(self.steps) >= CURVE_POINTS:
                self.steps, self.values = self.steps[::2], self.values[::2]
                self._stride *= 2
        self._seen += 1


class RunLog:
    """losses.jsonl of a run. Opening it for a resumed run drops the lines after the checkpoint's step."""

    def __init__(self, path: Path, keep_until: int) -> None:
        self.path, self.curves = path, Curves()
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                record = _parsed(line)
                if record is not None and record["step"] <= keep_until:
                    kept.append(line)
                    self.curves.add(record["step"], record["losses"])
        replace_text(path, "".join(line + "\n" for line in kept))

    def add(self, step: int, losses: dict[str, float], **more: float) -> None:
        """Append one line: the mean of each loss term since the last line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "losses": losses, **more}) + "\n")
        self.curves.add(step, losses)


def choose_tracker(name: str) -> str | None:
    """Return the tracker to use: "auto" takes TensorBoard, else trackio, where installed; "none" neither.

    Raises:
        InputError: a tracker asked for by name is not installed.
    """
    installed = [t for t in ("tensorboard", "trackio") if importlib.util.find_spec(t) is not None]
    if name == "auto":
        return installed[0] if installed else None
    if name != "none" and name not in installed:
        raise InputError("--set train.tracker", f"{name}, which is not installed", ", ".join([*installed, "none"]))
    return None if name == "none" else name


def say(text: str) -> None:
    """Write one progress line to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the last line of a killed run may be half written
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole and isinstance(record.get("losses"), dict) else None
