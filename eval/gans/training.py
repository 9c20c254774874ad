"""Trainings of `gan_baselines`, each in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from freectl.errors import FreectlError


def run_training(model: str, data: Path, out: Path, settings: Sequence[str], later: Sequence[str] = ()) -> None:
    """Train into `out`, or go on with the run that is there; what it tells goes to stderr.

    Args:
        settings: `key=value` of a new run. later: those that a run which goes on is given.

    Raises:
        FreectlError: the training failed.
    """
    command = [sys.executable, "-m", "gan_baselines", "train", model, "--data", str(data), "--out", str(out)]
    begun = (out / "run.json").exists()
    command += ["--resume"] if begun else []
    for text in later if begun else settings:
        command += ["--set", text]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise FreectlError(f"the training of {model} in '{out}' ended with exit code {done.returncode}; see above")
