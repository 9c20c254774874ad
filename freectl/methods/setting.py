"""Settings that say what they mean: a pydantic field with unit and source, and how `freectl methods` tells of it."""

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from freectl.errors import InputError

_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}


def setting(default: Any, description: str, *, unit: str, source: str, **limits: Any) -> Any:
    """A field of a settings class.

    Args:
        unit: what a number counts, such as "share of steps"; "choice", "text" or "factor" where nothing is counted.
        source: section of the method's paper or the published code that has it; "ours" where none has.
        limits: `ge`, `gt`, `le`, `lt`.
    """
    return Field(default, description=description, json_schema_extra={"unit": unit, "source": source}, **limits)


def inversion_level() -> Any:
    """The setting `inversion_at` of methods that invert the picture."""
    return setting(
        "lower",
        "level whose timestep the network is told while inverting from the lower to the upper one",
        unit="choice",
        source="upper in its code; lower is the ODE's",
    )


def blocks_run_again(source: str) -> Any:
    """The setting `checkpointing` of methods whose steps take a gradient.

    Args:
        source: what its published code does.
    """
    return setting(
        "auto",
        "keep the inputs of blocks alone for the gradient and run them again: less memory, more time, the same "
        "picture; auto = where a GPU has less than 8 GiB left",
        unit="choice",
        source=f"arXiv 1604.06174; {source}",
    )


def described(settings: BaseModel) -> list[dict[str, Any]]:
    """Name, default, range, unit, meaning and source of each setting, in the order they are declared."""
    return [_described(name, getattr(settings, name), field) for name, field in type(settings).model_fields.items()]


def _described(name: str, value: Any, field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return {
        "name": name,
        "default": value,
        "range": allowed(field),
        "unit": extra.get("unit", ""),
        "description": field.description or "",
        "source": extra.get("source", ""),
    }


def allowed(field: FieldInfo) -> str:
    """The values a field takes, in words, from its type and limits."""
    kinds = get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
    words = []
    for kind in kinds:
        if kind is type(None):
            words.append("none")
        elif get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        elif kind is bool:
            words += ["true", "false"]
        elif kind in (int, float):
            words.append(_number(field, "whole number" if kind is int else "number"))
        else:
            words.append("text")
    return " | ".join(words)


def fault(error: ValidationError) -> tuple[str, str, str]:
    """The first thing that a settings class refuses: name, what was found and what is allowed, in words.

    Raises:
        InputError: the one that a check of the class's own raised.
    """
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
        raise cause from None
    given = first.get("input")
    found = "an empty text" if isinstance(given, str) and not given.strip() else repr(given)
    found = "nothing" if given in ((), []) else found
    return str(first["loc"][0]), found, first["msg"].removeprefix("Value error, ")


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _number(field: FieldInfo, kind: str) -> str:
    found = [
        template.format(f"{getattr(limit, name):g}")
        for name, template in _LIMITS.items()
        for limit in field.metadata
        if getattr(limit, name, None) is not None
    ]
    return " ".join([kind, *found])
