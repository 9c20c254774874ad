"""Errors a user can act on: one line each, with the exit code the command line ends in."""

import difflib
from collections.abc import Iterable


class GanError(Exception):
    """A run failed for a reason the user can read; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class DivergedError(GanError):
    """A loss or a weight stopped being a finite number; the last good checkpoint is kept."""


class TrainingStoppedError(GanError):
    """A signal ended a training; its last step is stored. The exit code is 128 + the signal's number."""

    def __init__(self, signal: int, step: int, out: object) -> None:
        self.signal, self.step, self.exit_code = signal, step, 128 + signal
        super().__init__(f"interrupted; step {step} is stored in '{out}', --resume goes on from it")


class InputError(GanError, ValueError):
    """An option, setting or file cannot be used.

    Args:
        option: flag (`--data`) or setting (`model.generator.downs`).
        found: what was given, in words.
        allowed: what may be given, in words.
    """

    exit_code = 2

    def __init__(self, option: str, found: str, allowed: str) -> None:
        self.option, self.found, self.allowed = option, found, allowed
        # one line whatever a file name holds: the command line prints it as is
        super().__init__(" ".join(f"{option}: found {found}; allowed: {allowed}".split()))

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        return type(self), (self.option, self.found, self.allowed)


def unknown(option: str, found: str, choices: Iterable[str]) -> InputError:
    """Return (not raise) the error for a name outside `choices`, with the nearest one."""
    names = sorted(choices)
    near = difflib.get_close_matches(found.lower(), names, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return InputError(option, f"unknown name '{found}'", f"{', '.join(names)}{hint}")
