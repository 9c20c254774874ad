"""From a form's values to checked runs, and from a record back to a form's values. Knows no browser."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freectl import methods
from freectl.errors import InputError
from freectl.files import record as records
from freectl.preprocess import mesh
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks import options as config
from freectl.tasks.command import command
from freectl.tasks.inputs import read_input
from freectl.tasks.options import ControlOptions, EditOptions, RunOptions
from freectl.ui import uploads, words
from freectl.ui.session import PICTURES, files_of

SHOWN = frozenset(
    {*RunOptions.model_fields, *EditOptions.model_fields, *ControlOptions.model_fields}
    - {"background", "lora", "textual_inversion", "device", "dtype", "offload", "vae_tiling"}
    - {"keep_concept", "keep_alpha", "long_prompts"}
)
"""Options that have a field; the others are lines of a text."""
PAIRED = ("concept", "source_prompt", "mask", "preprocess", "view")
"""Options of control that pair up with the conditions: texts, with ; between."""
Form = dict[str, Any]
"""Values by name: those of the options, `image` (uploaded) or `condition` (a list of such), `inside` (whether to look),
`settings` (of the method, on top of its preset), `seed` (a text with one or several), `vary` and `values` (a setting
and a text of its values), `more` (a text of further options)."""


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
        names = {path: Path(path).name for path in files_of(self.form)}
        update = {name: _renamed(getattr(self.options, name, None), names) for name in PICTURES if name != "image"}
        known = {name: value for name, value in update.items() if name in type(self.options).model_fields}
        line = command(self.options.model_copy(update=known), self.settings, Path(image).name if image else None)
        return f"{line} --explain inside" if self.form.get("inside") else line

    def record(self, made: Mapping[str, Any], output: str) -> dict[str, Any]:
        """The record of the run as the command line prints it, with files called by their names."""
        names = {path: Path(path).name for path in files_of(self.form)}
        return {"output": output, **_renamed(dict(made), names)}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A value with every text in it that is a key of `names` renamed."""
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_renamed(one, names) for one in value)
    return names.get(value, value) if isinstance(value, str) else value


def edits(form: Form) -> list[Asked]:
    """The edits that a form asks for: one a seed and a value of the setting that is varied.

    Raises:
        InputError: one line naming the option, what was found and what is allowed.
    """
    path = form.get("image")
    uploads.check(path, "--image")
    with uploads.named(*files_of(form)):
        found = _runs(form, EditOptions, ("keep", "mask", "appearance_image"))
        picture = replace(read_input(path, found[0][0]), source=Path(str(path)).name)
        return [
            Asked(editing.plan(picture, options, settings), options, settings, own, label)
            for options, settings, own, label in found
        ]


def controls(form: Form) -> list[Asked]:
    """The runs under conditions that a form asks for.

    Raises:
        InputError: as `edits`.
    """
    conditions = list(form.get("condition") or [])
    if not conditions:
        raise InputError("--condition", "no picture", "an uploaded picture or mesh")
    for one in conditions:
        if not mesh.is_mesh(one):
            uploads.check(one, "--condition")
    with uploads.named(*files_of(form)):
        found = _runs(form, ControlOptions, ("mask", "appearance_image"))
        return [
            Asked(controlling.plan(conditions, options, settings), options, settings, own, label)
            for options, settings, own, label in found
        ]


def _runs(form: Form, cls: type[RunOptions], files: tuple[str, ...]) -> list[tuple[Any, dict[str, Any], Form, str]]:
    for name in files:
        if form.get(name) and not words.no_file(form[name]):
            uploads.check(form[name], f"--{name.replace('_', '-')}")
    more = other_options(str(form.get("more") or ""), cls)
    vary = form.get("vary") or ""
    several = words.values(str(form.get("values") or "")) if vary else []
    found = []
    for seed, value in words.combinations(words.whole_numbers(str(form.get("seed", 0))), several, f"--set {vary}"):
        settings = dict(form.get("settings") or {}) | ({} if value is None else {vary: value})
        own = {**form, "seed": str(seed), "settings": settings, "vary": None, "values": ""}
        given = {name: form[name] for name in cls.model_fields if form.get(name) not in (None, "")}
        if cls is ControlOptions:
            said = [name for name in PAIRED if name in given and (name != "mask" or words.no_file(given[name]))]
            given |= {name: words.parts(given[name]) for name in said}
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
    paired = PAIRED if name == "control" else ()
    form |= {key: "; ".join(value) if key in paired else value for key, value in options if key in SHOWN}
    form["more"] = _lines(options)
    missing = []
    for key in PICTURES:
        named = form.get(key)
        if not named or words.no_file(named):
            continue
        names = [Path(str(one)).name for one in (named if isinstance(named, tuple) else [named])]
        missing += [f"upload {one} again ({key.replace('_', ' ')})" for one in names if one not in known]
        found = [known[one] for one in names if one in known]
        form[key] = found if key == "condition" else next(iter(found), None)
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


def read_dropped(path: str) -> dict[str, Any]:
    """The record of a picture that freectl wrote.

    Raises:
        InputError: it has none.
    """
    uploads.check(path, "picture")
    return records.read_record(path, "picture")
