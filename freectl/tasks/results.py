"""Finished pictures beside each other, each labelled with what tells it from the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from freectl.errors import InputError
from freectl.files import pictures
from freectl.files import record as records

NEVER = ("output", "cost", "warnings", "about", "conditions")
"""Keys of a record that tell how a run went."""


def labelled(paths: Sequence[str], option: str = "RESULT") -> tuple[list[tuple[str, Image.Image]], list[Any]]:
    """Pictures with their labels, and their records, None where one has none.

    A label has the file's name, the method, and every option and setting in which the pictures that have a record
    differ and that all of them have.

    Raises:
        InputError: a picture that cannot be read.
    """
    found = [pictures.load_image(path, option).image for path in paths]
    kept = [_record(path, option) for path in paths]
    flat = [None if one is None else _flat(one) for one in kept]
    telling = differing([one for one in flat if one is not None])
    labels = [
        ": ".join(filter(None, (Path(path).name, _words(one, telling)))) for path, one in zip(paths, flat, strict=True)
    ]
    return list(zip(labels, found, strict=True)), kept


def differing(flat: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that all have, with values that are not all equal, in the order of the first."""
    if len(flat) < 2:
        return []
    shared = [key for key in flat[0] if all(key in one for one in flat)]
    return [key for key in shared if any(one[key] != flat[0][key] for one in flat)]


def _record(path: str, option: str) -> dict[str, Any] | None:
    try:
        return records.read_record(path, option)
    except InputError:  # any picture may stand beside results
        return None


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    settings = record.get("settings")
    nested = settings if isinstance(settings, dict) else {}
    return {key: value for key, value in {**record, **nested}.items() if key not in (*NEVER, "settings")}


def _words(flat: dict[str, Any] | None, telling: Sequence[str]) -> str:
    if flat is None:
        return ""
    others = [f"{key.replace('_', ' ')} {_value(flat[key])}" for key in telling if key not in ("method", "image")]
    return ", ".join([str(flat.get("method", "")), *others])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
