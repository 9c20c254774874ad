"""How every command line here ends: an exit code, and errors in one line on stderr."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from freectl.errors import FreectlError, one_line

INTERRUPTED, TERMINATED = 130, 143


def ended(app: typer.Typer, interrupted: str | Callable[[], str], prefix: str = "") -> int:
    """Run an app; the exit code: 0 done, 1 failed, 2 bad usage or input, 130 interrupted, 143 terminated.

    Args:
        interrupted: said after Ctrl-C and SIGTERM, or a function that gives it. prefix: of each line on stderr.
    """

    def failed(text: str, code: int) -> int:
        with suppress(OSError, ValueError):  # nobody reads stderr: the code says it
            sys.stderr.write(f"{prefix}{one_line(text)}\n")
            sys.stderr.flush()
        return code

    with _terminable() as stopped, _patient_stderr():
        try:
            code = app(standalone_mode=False)
            _flush_stdout()
        except FreectlError as error:
            code = failed(str(error), error.exit_code)
            _discard_stdout()
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except BrokenPipeError:
            _discard_stdout()
            code = 1
        except OSError as error:
            name = "" if error.filename is None else f"'{error.filename}': "
            code = failed(f"{name}{error.strerror or error}", 1)
        except Exception as error:
            code = _usage(error, failed)
        if code == INTERRUPTED:
            said = interrupted if isinstance(interrupted, str) else interrupted()
            code = failed(f"{'terminated; ' if stopped else ''}{said}", TERMINATED if stopped else INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage(error: Any, failed: Callable[[str, int], int]) -> int:
    # typer's usage errors have changed module between its releases
    if not hasattr(error, "format_message"):
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    return failed(" ".join(error.format_message().split()), 2)


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """SIGTERM ends the block as Ctrl-C does; the list is not empty then."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, which alone may
        yield stopped
        return
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _patient_stderr() -> Iterator[None]:
    """Within the block a full or closed stderr loses what is written to it and ends nothing."""
    before = sys.stderr
    if before is not None:
        sys.stderr = _Patient(before)
    try:
        yield
    finally:
        sys.stderr = before


class _Patient:
    """A stream that gives up instead of raising."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _flush_stdout() -> None:
    """Raises FreectlError: what is left cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FreectlError(f"standard output cannot be written: {error.strerror or error}") from error


def _discard_stdout() -> None:
    """Send what cannot be written to nowhere, else the interpreter's last flush complains."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
