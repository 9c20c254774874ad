"""Errors a user can act on: one line each, with the exit code the command line ends in."""

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
LONGEST = 500
"""Characters of a line of error."""
_LISTED = 12
# control characters move the cursor or run commands of terminals, the others turn the direction of text or are halves
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FLAG = re.compile(r"--(?:set )?([a-z][a-z_-]*)")


def visible(text: str, keep: str = "") -> str:
    """The text with characters that a terminal would obey written as escapes, but for those in `keep`."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The text as one line of at most `LONGEST` visible characters; of a longer one the middle is left out."""
    line = visible("\n".join(text.splitlines()))
    half = (LONGEST - 5) // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


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
        super().__init__(one_line(f"{option}: found {found}; allowed: {allowed}"))

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        # the default rebuilds from the message alone, which fails when a worker process hands the error back
        return type(self), (self.option, self.found, self.allowed)

    def in_python(self) -> "InputError":
        """The same error in the words of a Python caller: arguments in place of command-line flags."""
        option, found, allowed = (
            _FLAG.sub(lambda flag: flag[1].replace("-", "_"), text) for text in (self.option, self.found, self.allowed)
        )
        return type(self)("conditions" if option == "condition" else option, found, allowed)


def python_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what Python callers use, so that input errors name its arguments."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise error.in_python() from error.__cause__

    return called


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
