"""How every command line here ends: an exit code, and errors in one line on stderr."""

import sys

import typer

from freectl.errors import FreectlError

INTERRUPTED = 130


def ended(app: typer.Typer, interrupted: str, prefix: str = "") -> int:
    """Run an app; the exit code: 0 done, 1 failed, 2 bad usage or input, 130 interrupted.

    Args:
        interrupted: said after Ctrl-C. prefix: of each line on stderr.
    """

    def failed(text: str, code: int) -> int:
        sys.stderr.write(f"{prefix}{text}\n")
        return code

    try:
        code = app(standalone_mode=False)
    except FreectlError as error:
        code = failed(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stdout = None  # else the interpreter's last flush complains
        code = 1
    except Exception as error:
        # typer's usage errors have changed module between its releases
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            code = 2
        else:
            code = failed(" ".join(error.format_message().split()), 2)
    if code == INTERRUPTED:
        failed(interrupted, code)
    return code if isinstance(code, int) else 0
