"""From a form's values to checked runs, and from a record back to a form's values. Knows no browser."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freectl import methods
from freectl.errors import InputError
from freectl.files import record as records
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks import options as config
from freectl.tasks.inputs import read_input
from freectl.tasks.options import ControlOptions, EditOptions, RunOptions
from freectl.ui import uploads, words
from freectl.ui.command import command
from freectl.ui.session import PICTURES

SHOWN = frozenset(
    {*RunOptions.model_fields, *EditOptions.model_fields, *ControlOptions.model_fields}
    - {
        "background",
        "lora",
        "textual_inversion",
        "device",
        "dtype",
        "offload",
        "keep_concept",
        "keep_alpha",
        "view",
        "long_prompts",
    }
)
"""Options that have a field; the others are lines of a text."""
Form = dict[str, Any]
"""Values by name: those of the options, `image` or `condition` (uploaded), `settings` (of the method, on top of its
preset), `seed` (a text with one or several), `vary` and `values` (a setting and a text of its values), `more` (a
text of further options)."""


@dataclass(frozen=True)
class Asked:
    """A run whose inputs have been checked.

    Attributes:
        form: the values that repeat this run alone. label: what tells it from the others of one go.
    """

    plan: Any
    options: RunOptions
    settings: dict[str, Any]
    form: Form
    label: str

    def command(self) -> str:
        """The command line that repeats it, with files called by their names."""
        image = self.form.get("image")
        named = {name: Path(path).name for name in PICTURES if (path := self.form.get(name)) and name != "image"}
        options = self.options.model_copy(
            update={name: (value,) if name == "condition" else value for name, value in named.items()}
        )
        return command(options, self.settings, Path(image).name if image else None)

    def record(self, made: Mapping[str, Any], output: str) -> dict[str, Any]:
        """The record of the run as the command line prints it, with files called by their names."""
        names = {str(path): Path(str(path)).name for name in PICTURES if (path := self.form.get(name))}

        def named(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: named(one) for key, one in value.items()}
            if isinstance(value, list | tuple):
                return [named(one) for one in value]
            return names.get(value, value) if isinstance(value, str) else value

        return {"output": output, **named(dict(made))}


def edits(form: Form) -> list[Asked]:
    """The edits that a form asks for: one a seed and a value of the setting that is varied.

    Raises:
        InputError: one line naming the option, what was found and what is allowed.
    """
    path = form.get("image")
    uploads.check(path, "--image")
    with uploads.named(*(form.get(name) for name in PICTURES)):
        found = _runs(form, EditOptions, ("keep", "mask", "appearance_image"))
        picture = replace(read_input(path, found[0][0]), source=Path(str(path)).name)
        return [
            Asked(editing.plan(picture, options, settings), options, settings, own, label)
            for options, settings, own, label in found
        ]


def controls(form: Form) -> list[Asked]:
    """The runs under a condition that a form asks for.

    Raises:
        InputError: as `edits`.
    """
    condition = str(form.get("condition") or "")
    if Path(condition).suffix.lower() not in (".obj", ".glb", ".ply"):
        uploads.check(condition, "--condition")
    with uploads.named(*(form.get(name) for name in PICTURES)):
        found = _runs({**form, "condition": condition}, ControlOptions, ("mask", "appearance_image"))
        return [
            Asked(controlling.plan([condition], options, settings), options, settings, own, label)
            for options, settings, own, label in found
        ]


def _runs(form: Form, cls: type[RunOptions], files: tuple[str, ...]) -> list[tuple[Any, dict[str, Any], Form, str]]:
    for name in files:
        if form.get(name) not in (None, "", "none", "attention"):
            uploads.check(form[name], f"--{name.replace('_', '-')}")
    more = other_options(str(form.get("more") or ""), cls)
    vary = form.get("vary") or ""
    several = words.values(str(form.get("values") or "")) if vary else []
    found = []
    for seed, value in words.combinations(words.whole_numbers(str(form.get("seed", 0))), several, f"--set {vary}"):
        settings = dict(form.get("settings") or {}) | ({} if value is None else {vary: value})
        own = {**form, "seed": str(seed), "settings": settings, "vary": None, "values": ""}
        given = {name: form[name] for name in cls.model_fields if form.get(name) not in (None, "")}
        given |= more
        label = f"{form.get('method', 'freecontrol')}, seed {seed}" + ("" if value is None else f", {vary} {value}")
        found.append((config.validated(cls, given | {"seed": seed}), settings, own, label))
    return found


def restored(record: Mapping[str, Any], known: Mapping[str, str]) -> tuple[str, Form, list[str]]:
    """The command of a record, a form's values, and in words what the record cannot give back.

    Args:
        known: paths of the session's pictures by their names; a record has names only.

    Raises:
        InputError: the record is no run's, or holds what is not allowed.
    """
    plain = dict(record)
    if not isinstance(plain.get("settings", {}), dict):
        raise InputError("picture", "a record whose settings are no mapping", "a picture that freectl wrote")
    name = "control" if plain.get("command") == "control" else "edit"
    split, cls = (
        (controlling.split_record, ControlOptions) if name == "control" else (editing.split_record, EditOptions)
    )
    given, settings = split(plain)
    form: Form = {"image": given.pop("image", None)}
    options = config.validated(cls, given)
    method = methods.get(options.method)
    config.method_settings(method, options.preset, settings)
    form |= {key: _plain(value) for key, value in options if key in SHOWN}
    form["more"] = _lines(options)
    missing = []
    for key in PICTURES:
        named = form.get(key)
        if named in (None, "", "none", "attention"):
            continue
        form[key] = known.get(Path(str(named)).name)
        if form[key] is None:
            missing.append(f"upload {Path(str(named)).name} again ({key.replace('_', ' ')})")
    base = method.settings().model_dump() | method.presets[options.preset]
    form["settings"] = {key: value for key, value in settings.items() if value != base.get(key)}
    return name, form | {"seed": str(options.seed), "vary": None, "values": ""}, missing


def other_options(text: str, cls: type[RunOptions]) -> dict[str, Any]:
    """Options that have no field of their own, from lines name=value; a name may repeat.

    Raises:
        InputError: no such option, or one that has a field.
    """
    found: dict[str, Any] = {}
    for line in filter(None, (one.strip() for one in text.splitlines())):
        for name, value in config.parse_assignments([line]).items():
            if name not in cls.model_fields or name in SHOWN:
                allowed = ", ".join(key for key in cls.model_fields if key not in SHOWN)
                raise InputError("more options", repr(name), allowed)
            found[name] = (*found[name], value) if name in found else (value,)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _lines(options: RunOptions) -> str:
    """The options without a field that are not their defaults, as `other_options` reads them."""
    lines = []
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name not in SHOWN and value != field.default:
            lines += [f"{name}={one}" for one in (value if isinstance(value, tuple) else (value,))]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Options of one condition, as fields have them: one value instead of a list of one."""
    return (value[0] if value else None) if isinstance(value, tuple) else value


def read_dropped(path: str) -> dict[str, Any]:
    """The record of a picture that freectl wrote.

    Raises:
        InputError: it has none.
    """
    uploads.check(path, "picture")
    return records.read_record(path, "picture")
