"""The command line that repeats a run."""

import shlex
from typing import Any

from freectl.tasks.options import EditOptions, RunOptions


def command(options: RunOptions, settings: dict[str, Any], image: str | None = None) -> str:
    """`freectl edit` or `freectl control` with everything that is not a default.

    Args:
        settings: of the method, as they were given on top of its preset.
        image: input picture of an edit.
    """
    words = ["freectl", "edit" if isinstance(options, EditOptions) else "control"]
    words += [] if image is None else ["--image", image]
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if value != field.default and value not in ((), None):
            words += _flag(name, value)
    for name, value in settings.items():
        words += ["--set", f"{name}={_text(value)}"]
    return " ".join(shlex.quote(word) for word in words)


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    return [word for one in (value if isinstance(value, tuple) else (value,)) for word in (flag, _text(one))]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
