"""Names of results: a template filled in for each, always below the folder of the batch, never one for two."""

import re
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

from freectl.errors import InputError
from freectl.files.record import WRITABLE

DEFAULT = "{stem}_{seed}.png"
FIELDS = ("stem", "seed", "row", "shard", "method", "preset", "model", "steps")
"""shard: thousands of rows, 0000, 0001, ...: folders that file systems like."""
_ALLOWED = f"a name such as {DEFAULT} or {{method}}/{{row:06d}}.png, of the fields {', '.join(FIELDS)}"
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')
_WIDTH = re.compile(r"(0?[1-9][0-9]?d?)?")
_LONGEST = 200


def check_template(template: str, option: str = "--name") -> str:
    """The template, after filling it in once.

    Raises:
        InputError: an unknown field, another form, an ending that is no picture's, or a path that leaves the folder.
    """
    try:
        parts = [(name, width, kind) for _, name, width, kind in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise InputError(option, f"'{template}' ({error})", _ALLOWED) from error
    # conversions and free widths could ask for gigabytes
    odd = next(
        (f"{{{name}:{width}}}" for name, width, kind in parts if kind or not _WIDTH.fullmatch(width or "")), None
    )
    if odd is not None:
        raise InputError(option, f"'{template}' with {odd}", _ALLOWED)
    other = next((name for name, _, _ in parts if name not in FIELDS), None)
    if other is not None:
        raise InputError(option, f"'{template}' with the field '{other}'", _ALLOWED)
    # a stem is any text, a number may be asked for by its width
    _filled(template, {name: 1 if name in ("seed", "row", "steps") else "x" for name in FIELDS}, option)
    return template


def _filled(template: str, values: dict[str, Any], option: str) -> str:
    try:
        name = template.format(**values)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError, OverflowError) as error:
        raise InputError(option, f"'{template}' ({error})", _ALLOWED) from error
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in name or not name.strip()
    if leaves or path.suffix.lower() not in WRITABLE or name != str(path) or path.name.startswith("."):
        raise InputError(option, f"'{template}', which gives '{name}'", f"{_ALLOWED}; endings {', '.join(WRITABLE)}")
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST for part in path.parts):
        raise InputError(option, f"'{template}', which gives a name of more than {_LONGEST} bytes", "a shorter one")
    return name


class Names:
    """Names of one batch's results, in the order of its rows; one that is taken gets a number, NAME_2.png."""

    def __init__(self, template: str = DEFAULT, option: str = "--name") -> None:
        self.template, self.option = check_template(template, option), option
        self._taken: set[str] = set()

    def name(self, row: int, image: str, options: Any) -> str:
        """The name of a result, relative to the folder.

        Raises:
            InputError: it is too long, or no name.
        """
        values = {
            "stem": _part(PurePosixPath(image).stem),
            "row": row,
            "shard": f"{row // 1000:04d}",
            "seed": options.seed,
            "steps": options.steps,
            **{name: _part(str(getattr(options, name))) for name in ("method", "preset", "model")},
        }
        path = PurePosixPath(_filled(self.template, values, self.option))
        number, found = 1, str(path)
        while found.casefold() in self._taken:
            number += 1
            found = str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
        self._taken.add(found.casefold())
        return found


def _part(text: str) -> str:
    """A text as part of a name."""
    return _UNSAFE.sub("_", text).strip(". ")[:100] or "_"
