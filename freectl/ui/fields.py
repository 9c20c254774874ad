"""What a settings class asks for, as fields of a form: names, ranges, choices and words of the command line."""

import types
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from freectl.methods.setting import allowed

Kind = Literal["choice", "switch", "whole", "number", "text"]
_SEVERAL = (Union, types.UnionType)


@dataclass(frozen=True)
class Field:
    """One setting as a form shows it.

    Attributes:
        choices: of a choice; empty else.
        low, high: limits of a number, inclusive or not; None = none.
        optional: whether it may be left empty, which stands for None.
        help: meaning, range and unit, as `freectl methods --describe` has them.
    """

    name: str
    kind: Kind
    default: Any
    optional: bool
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    help: str = ""

    def given(self, value: Any) -> Any:
        """A form's value as the settings class takes it: an empty field is None, or an empty text."""
        if value is None or value == "" or (self.kind == "choice" and value == "none" and "none" not in self.choices):
            return None if self.optional else self.default if self.kind != "text" else ""
        return value if self.kind not in ("whole", "number") else _number(value)


def _number(value: Any) -> Any:
    """A number that a form holds, or a text that the settings class will refuse, as it was."""
    with suppress(ValueError):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value


def fields(settings: type[BaseModel]) -> list[Field]:
    """The fields of a settings class, in the order they are declared."""
    return [_field(name, info) for name, info in settings.model_fields.items()]


def _field(name: str, info: FieldInfo) -> Field:
    kinds = get_args(info.annotation) if get_origin(info.annotation) in _SEVERAL else (info.annotation,)
    literals = [str(one) for kind in kinds if get_origin(kind) is Literal for one in get_args(kind)]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    unit = str(extra.get("unit", ""))
    about = [allowed(info)] if int in kinds or float in kinds else []
    about += [unit] if unit not in ("", "choice", "text") else []
    words = f"{info.description or ''} ({', '.join(about)})" if about else info.description or ""
    return Field(
        name,
        "choice" if literals else _kind(kinds),
        info.default,
        type(None) in kinds,
        tuple(literals),
        _limit(info, "ge", "gt"),
        _limit(info, "le", "lt"),
        words,
    )


def _kind(kinds: tuple[Any, ...]) -> Kind:
    names: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number"}
    return next((names[kind] for kind in kinds if kind in names), "text")


def _limit(info: FieldInfo, *names: str) -> float | None:
    found = [
        getattr(limit, name) for name in names for limit in info.metadata if getattr(limit, name, None) is not None
    ]
    return float(found[0]) if found else None


def changed(method: Any, preset: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of a method's values that are not its preset's already.

    Args:
        values: by name of the setting, as the settings class takes them.
    """
    base = method.settings().model_dump() | method.presets[preset]
    return {name: value for name, value in values.items() if value != base[name]}
