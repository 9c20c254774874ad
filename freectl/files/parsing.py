"""JSON and YAML of other people as plain values: bounded in size and depth, no aliases, tags, dates or double keys."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from freectl.errors import InputError

MAX_JSON, MAX_YAML = 1_000_000, 100_000
"""Characters. A configuration has some thousands; a YAML of a million takes a minute to read."""
MAX_DEPTH = 12
MAX_NUMBER = 2**64
_RESOLVERS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO", list("tTfFyYnN")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
}


class _Plain(yaml.SafeLoader):
    """YAML without what can be misread or abused; numbers as JSON writes them."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own attribute

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", mark)
        return super().construct_mapping(node, deep)


for _name, (_pattern, _first) in _RESOLVERS.items():
    _Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def parse_json(text: str, path: Path, option: str) -> dict[str, Any]:
    """The mapping in a JSON text; `path` is what messages call it.

    Raises:
        InputError: too long, invalid, too deep, a key given twice, NaN, or no mapping.
    """

    def no_constant(name: str) -> None:
        raise ValueError(f"the number {name} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is given twice")
        return found

    _check_length(text, MAX_JSON, path, option)
    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=once)
        _check_plain(value)
    except (ValueError, RecursionError) as error:
        raise InputError(option, f"'{path}', invalid JSON ({error})", "one JSON object") from error
    return _mapping(value, path, option)


def parse_yaml(text: str, path: Path, option: str) -> dict[str, Any]:
    """The mapping in a YAML text, read as a safe subset: no aliases, tags, dates or numbers to base 60.

    Raises:
        InputError: as `parse_json`.
    """
    _check_length(text, MAX_YAML, path, option)
    try:
        value = yaml.load(text, _Plain)
        _check_plain(value)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else " ".join(str(error).split())
        raise InputError(option, f"'{path}', invalid YAML ({where})", "one YAML mapping") from error
    return _mapping(value, path, option)


def _check_length(text: str, limit: int, path: Path, option: str) -> None:
    if len(text) > limit:
        raise InputError(option, f"'{path}' with more than {limit} characters", "a configuration of a few thousand")


def _check_plain(value: Any, depth: int = 0) -> None:
    """Raises ValueError: nested too deep, a number too large, or a value that JSON has not."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check_plain(one, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise ValueError(f"a number beyond {MAX_NUMBER:.0e}")
    elif not (value is None or isinstance(value, str | int | float)):
        raise ValueError(f"a value of the type {type(value).__name__}")


def _mapping(value: Any, path: Path, option: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(option, f"'{path}' holding {type(value).__name__}", "one mapping of names to values")
    odd = [key for key in value if not isinstance(key, str)]
    if odd:
        raise InputError(option, f"'{path}' with the key {odd[0]!r}", "keys that are text")
    if not isinstance(value.get("settings", {}), dict):
        found = f"'{path}' with the settings {value['settings']!r}"
        raise InputError(option, found, "settings that are a mapping of names to values")
    return value
