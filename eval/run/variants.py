"""What `--methods`, `--set` and `--sweep` ask for: the methods and settings that are compared, each with a label."""

import re
from dataclasses import dataclass, field
from itertools import product

from eval.gans import GAN
from freectl.errors import InputError, unknown

_OUTSIDE = re.compile(r",(?![^\[]*\])")
_METHOD = re.compile(r"(?P<name>[^:\[\]]+)(:(?P<preset>[^\[\]]+))?(\[(?P<own>[^\[\]]*)\])?")
_METHODS = "names with commas between, such as sdedit,freecontrol:official,freecontrol[start=noise,mask=exact]"


@dataclass(frozen=True)
class Variant:
    """One method with one set of settings.

    Attributes:
        method, preset: as registered; for a GAN, the preset is the name of its weights.
        sets: values given by `--set`, as text.
        swept: values given by `--sweep`, as text; variants that differ in these alone make one curve.
    """

    method: str
    preset: str = "default"
    sets: dict[str, str] = field(default_factory=dict)
    swept: dict[str, str] = field(default_factory=dict)

    @property
    def curve(self) -> str:
        """The label without swept values."""
        return _label(self.method, self.preset, self.sets)

    @property
    def label(self) -> str:
        """E.g. "freecontrol[structure_strength=0.5]"."""
        return _label(self.method, self.preset, {**self.sets, **self.swept})

    @property
    def folder(self) -> str:
        """The label as a folder's name."""
        return re.sub(r"[^\w.=+,-]+", "_", self.label).strip("_")

    @property
    def values(self) -> dict[str, str]:
        """All given values."""
        return {**self.sets, **self.swept}


def _label(method: str, preset: str, values: dict[str, str]) -> str:
    name = method if preset == "default" else f"{method}:{preset}"
    listed = ",".join(f"{key}={value}" for key, value in sorted(values.items()))
    return f"{name}[{listed}]" if listed else name


def variants(methods: str, sets: list[str], sweeps: list[str], gans: list[str]) -> list[Variant]:
    """The variants of a command line, in its order; a swept method runs at the swept values only.

    Args:
        methods: names with commas between, each perhaps with ":preset" and "[key=value,...]", as labels have them;
            values with "|" between are a sweep.
        sets: `method.key=value`. sweeps: `method.key=value,value,...`.
        gans: names of the GAN weights that were given.

    Raises:
        InputError: malformed, a method that is not among `methods`, or a variant that occurs twice.
    """
    chosen = [_parsed(text) for text in _OUTSIDE.split(methods) if text.strip()]
    if not chosen:
        raise InputError("--methods", repr(methods), _METHODS)
    chosen = [(*pair, own) for name, preset, own in chosen for pair in _gans(name, preset, gans)]
    names = list(dict.fromkeys(name for name, _, _ in chosen))
    fixed: dict[str, dict[str, str]] = {name: {} for name in names}
    for text in sets:
        name, key, value = _assignment("--set", text, names)
        fixed[name][key] = value
    swept: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for text in sweeps:
        name, key, value = _assignment("--sweep", text, names)
        swept[name][key] = [part.strip() for part in value.split(",") if part.strip()]
        if not swept[name][key]:
            raise InputError("--sweep", repr(text), "method.key=value,value,...")
    made = []
    for name, preset, own in chosen:
        alone, several = _split(own)
        curves = swept[name] | several
        made += [
            Variant(name, preset, fixed[name] | alone, dict(zip(curves, values, strict=True)))
            for values in product(*curves.values())
        ]
    labels = [one.label for one in made]
    if doubled := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError("--methods", f"'{doubled[0]}' twice", "each method and preset once")
    return made


def _parsed(text: str) -> tuple[str, str, dict[str, str]]:
    match = _METHOD.fullmatch(text.strip())
    if match is None:
        raise InputError("--methods", repr(text.strip()), _METHODS)
    own = {}
    for part in filter(None, (match["own"] or "").split(",")):
        key, equals, value = (one.strip() for one in part.partition("="))
        if not (equals and key and value.strip("| ")):
            raise InputError("--methods", repr(text.strip()), _METHODS)
        own[key.replace("-", "_")] = value
    return match["name"], match["preset"] or "default", own


def _split(own: dict[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Settings of one value, and those of several with "|" between."""
    parts = {key: [one.strip() for one in value.split("|") if one.strip()] for key, value in own.items()}
    return {k: v[0] for k, v in parts.items() if len(v) == 1}, {k: v for k, v in parts.items() if len(v) > 1}


def _gans(name: str, preset: str, gans: list[str]) -> list[tuple[str, str]]:
    if name != GAN:
        return [(name, preset)]
    if not gans:
        raise InputError("--gan-weights", "nothing", "a weights folder for the method gan")
    if preset == "default":
        return [(GAN, own) for own in gans]
    if preset not in gans:
        raise unknown("--methods gan", preset, gans)
    return [(GAN, preset)]


def _assignment(option: str, text: str, names: list[str]) -> tuple[str, str, str]:
    left, equals, value = text.partition("=")
    name, dot, key = left.strip().partition(".")
    if not equals or not dot or not key or not value.strip():
        raise InputError(option, repr(text), "method.key=value, such as freecontrol.structure_strength=0.5")
    if name not in names:
        raise unknown(option, name, names)
    return name, key.replace("-", "_"), value.strip()
