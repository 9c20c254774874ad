"""Errors a user can act on: one line each, with the exit code the command line ends in."""

import difflib
from collections.abc import Iterable

_LISTED = 12


class FreectlError(Exception):
    """A run failed for a reason the user can read; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class InputError(FreectlError, ValueError):
    """An option or argument has a value that cannot be used.

    Args:
        option: command-line flag (`--image`), environment variable or Python argument name.
        found: what was given, in words.
        allowed: what may be given, in words.
    """

    exit_code = 2

    def __init__(self, option: str, found: str, allowed: str) -> None:
        self.option, self.found, self.allowed = option, found, allowed
        # one line whatever the file name or prompt holds: callers print it as is
        super().__init__("\\n".join(f"{option}: found {found}; allowed: {allowed}".splitlines()))

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        # the default rebuilds from the message alone, which fails when a worker process hands the error back
        return type(self), (self.option, self.found, self.allowed)


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the choice nearest to `name` (case ignored), or "" when none is near."""
    near = _nearest(name, choices, 1)
    return f"did you mean '{near[0]}'?" if near else ""


def unknown(option: str, found: str, choices: Iterable[str]) -> InputError:
    """Return (not raise) the error for a name outside `choices`: lists them, or the nearest when there are many."""
    names = sorted(choices)
    listed = ", ".join(names)
    if len(names) > _LISTED:
        shown = _nearest(found, names, 5) or names[:_LISTED]
        listed = f"one of {len(names)} names, such as {', '.join(shown)}"
    hint = suggest(found, names)
    return InputError(option, f"unknown name '{found}'", f"{listed or 'nothing'}{f' ({hint})' if hint else ''}")


def _nearest(name: str, choices: Iterable[str], count: int) -> list[str]:
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, n=count)]
