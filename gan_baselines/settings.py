"""From a model name, a file and `--set key=value` to checked settings, with one-line errors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gan_baselines.config import MODELS, PRESETS, RunConfig
from gan_baselines.errors import InputError, unknown

T = TypeVar("T", bound=BaseModel)


def resolve(model: str, file: Path | None = None, sets: Sequence[str] = (), preset: str = "published") -> RunConfig:
    """Merge published defaults < `preset` < `file` (JSON or YAML) < `sets`, check once.

    Raises:
        InputError: unknown model, preset or setting, value out of range, unreadable file.
    """
    if model not in MODELS:
        raise unknown("MODEL", model, MODELS)
    if preset not in PRESETS:
        raise unknown("--preset", preset, PRESETS)
    # complete sections, so that overriding one value of a network keeps the model's other defaults for it
    tree = RunConfig.model_validate({"model": {"name": model}}).model_dump()
    for name in dict.fromkeys(("published", preset)):
        tree = _merge(tree, PRESETS[name].get(model, {}))
    if file:
        tree = _merge(tree, read_file(file))
        if tree["model"].get("name") != model:
            raise InputError("--config", f"{file} for model '{tree['model'].get('name')}'", f"one for '{model}'")
    config = checked(RunConfig, override(tree, sets), "--set" if sets else "--config")
    if config.model.name != model:
        raise InputError("--set model.name", f"'{config.model.name}' beside '{model}'", f"'{model}'")
    return config


def override(tree: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return `tree` with dotted `key=value` items applied; values are JSON, or text where they are not.

    Raises:
        InputError: an item without "=", or one that goes through a value that is no section.
    """
    merged = dict(tree)
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise InputError("--set", f"'{item}'", "section.name=value, such as train.batch_size=4")
        branch: dict[str, Any] = {}
        leaf = branch
        *path, last = key.split(".")
        for part in path:
            leaf = leaf.setdefault(part, {})
        leaf[last] = _value(text)
        merged = _merge(merged, branch)
    return merged


def checked(kind: type[T], tree: Any, option: str) -> T:
    """Validate `tree` as `kind`; the first fault becomes one line that names the setting.

    Raises:
        InputError: the settings do not fit.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _first_fault(error, kind, option) from error


def read_file(file: Path, option: str = "--config") -> dict[str, Any]:
    """Read a JSON or YAML mapping.

    Raises:
        InputError: missing, unreadable, or not a mapping.
    """
    import yaml

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(option, f"'{file}', unreadable ({error})", "a JSON or YAML file") from error
    except yaml.YAMLError as error:
        raise InputError(option, f"'{file}', not YAML ({error})", "a JSON or YAML file") from error
    if not isinstance(tree, dict) or not all(isinstance(part, dict) for part in tree.values()):
        raise InputError(option, f"'{file}' without sections", "sections model, data and train")
    return tree


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and "kind" in old and isinstance(value, str):
            merged[key] = {"kind": value}  # norm=group
        else:
            merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _first_fault(error: ValidationError, kind: type[BaseModel], option: str) -> InputError:
    fault = error.errors()[0]
    # the union of models adds the model's name to the path; users never typed it
    path = [str(part) for part in fault["loc"] if part not in MODELS]
    where = ".".join(path) or kind.__name__
    if fault["type"] == "extra_forbidden":
        return unknown(f"{option} {where}", path[-1], _fields(kind, error.errors()[0]["loc"][:-1]))
    if fault["type"] == "value_error":  # several values that do not go together: the message says which
        found = fault["msg"].removeprefix("Value error, ")
        return InputError(f"{option} {where}", found, "values that fit each other (see gan-baselines settings MODEL)")
    return InputError(f"{option} {where}", repr(fault.get("input")), fault["msg"])


def _fields(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if part in MODELS:
            kind = MODELS[str(part)]
        elif str(part) in kind.model_fields and part != "model":
            kind = kind.model_fields[str(part)].annotation
    return list(kind.model_fields)
