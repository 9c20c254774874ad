"""A row to the results that it wants, checked without decoding its picture: one for each of its seeds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from freectl import methods
from freectl.errors import InputError
from freectl.files import remote
from freectl.files.opening import opened, stream_of
from freectl.files.outputs import digest
from freectl.files.paths import stamp
from freectl.pipelines.loading import check_adapters, resolve_model
from freectl.semantics import lookup
from freectl.tasks import options as config
from freectl.tasks.batch.names import Names
from freectl.tasks.batch.places import ADAPTERS, NAMES_OR_FILES, PICTURES, WORDS, Places
from freectl.tasks.options import EditOptions

MOST_SEEDS = 64
MACHINE = ("device", "offload")
"""Options that say where a result is made, not what it is."""
Values = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One result that a batch is to make, as plain values that travel between processes.

    Attributes:
        row: of the manifest, from 1 on. image: path or address. options: of `EditOptions`. settings: of the method.
        identity: digest of everything that makes the result, with the sizes and times of the files it reads.
        name: of the result, relative to the folder of the batch.
        size: (width, height) of the picture as it is stored; None where it was not asked.
    """

    row: int
    image: str
    options: Values
    settings: Values
    identity: str
    name: str
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Rows:
    """What holds for all rows that do not say otherwise.

    Attributes:
        options, settings: of edits, by name. places: where files lie. names: of the results.
    """

    options: Values = field(default_factory=dict)
    settings: Values = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    names: Names = field(default_factory=Names)

    def wanted(self, number: int, row: Mapping[str, Any]) -> list[Wanted]:
        """The results that a row wants.

        Raises:
            InputError: an unknown name or a value that cannot be used; no picture, or a file that is none.
        """
        own, settings = _split(row)
        given = {**self.options, **own}
        of_all = self.settings
        usual = {name: self.options.get(name, EditOptions.model_fields[name].default) for name in _WHOSE}
        if any(own.get(name, usual[name]) != usual[name] for name in _WHOSE):
            of_all = {}  # settings of another method or preset would not fit, and are not wanted
        said = f"row {number}"
        reached = {**given, **self.places.resolved(own, said)}
        settings = {**of_all, **self.places.resolved(settings, said)}
        image = _image(reached)
        seeds = _seeds(reached.pop("seed", 0))
        each = [config.validated(EditOptions, {**reached, "seed": seed}) for seed in seeds]
        _check_settings(each[0].method, each[0].preset, settings)
        if each[0].method not in methods.OUTSIDE:
            _model(each[0].model)
            _weights(each[0].lora, each[0].textual_inversion, settings.get("bases"))
        stamps = _stamps(image, each[0], settings)
        size = None if remote.is_remote(image) else _stored_size(image)
        return [
            Wanted(
                number,
                image,
                options.model_dump(mode="json"),
                settings,
                _identity(given, options, settings, stamps),
                self.names.name(number, image, options),
                size,
            )
            for options in each
        ]


_WHOSE = ("method", "preset")


def _split(row: Mapping[str, Any]) -> tuple[Values, Values]:
    """A row's options with its image, and its settings, which may stand among them or apart; null is nothing."""
    if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
        raise InputError("rows", f"a {type(row).__name__}", "mappings of names to values")
    apart = row.get("settings") or {}
    if not isinstance(apart, Mapping):
        raise InputError("--set", repr(apart), "a mapping of settings to values")
    flat = {name: value for name, value in row.items() if name != "settings" and value is not None}
    known = {"image", *EditOptions.model_fields}
    own = {name: value for name, value in flat.items() if name in known}
    return own, {**{name: value for name, value in flat.items() if name not in known}, **apart}


def _image(values: Values) -> str:
    image = values.pop("image", None)
    if isinstance(image, str) and image not in ("", "-"):
        return image
    found = "nothing" if image in (None, "") else repr(image)
    raise InputError("--image", found, "the path of a picture")


def _seeds(value: Any) -> list[Any]:
    """The seeds of a row: one, a list, or a text with commas between; the options check each."""
    texts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    found = [text.strip() if isinstance(text, str) else text for text in texts]
    if not found or len(found) > MOST_SEEDS or len(set(map(str, found))) < len(found):
        raise InputError("--seed", repr(value), f"1 to {MOST_SEEDS} different numbers")
    return found


def _check_settings(method: str, preset: str, settings: Values) -> None:
    try:
        _checked(method, preset, json.dumps(settings, sort_keys=True))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("--set", repr(settings), "numbers, texts, true and false") from error


@lru_cache(maxsize=1024)
def _checked(method: str, preset: str, settings: str) -> None:
    methods.check_asked([method], json.loads(settings))
    config.method_settings(methods.get(method), preset, json.loads(settings))


@lru_cache(maxsize=1024)
def _model(name: str) -> None:
    resolve_model(name)


@lru_cache(maxsize=1024)
def _weights(lora: tuple[str, ...], words: tuple[str, ...], bases: Any) -> None:
    """Raises InputError: a file of weights that is not whole; one elsewhere is looked at when it has been fetched."""
    here = [[one for one in given if not remote.is_remote(one)] for given in (lora, words)]
    check_adapters(*here)
    if isinstance(bases, str) and not remote.is_remote(bases):
        lookup.check_name(bases, "--set bases")


def _stored_size(image: str) -> tuple[int, int]:
    name, context = stream_of(image, "--image")
    with context as stream:
        try:
            return opened(stream, name, "--image").size
        except InputError:
            raise
        except Exception as error:  # decoders raise whatever the damaged bytes lead them to
            raise InputError("--image", f"{name}, truncated or damaged ({error})", "a still picture") from error


def _stamps(image: str, options: EditOptions, settings: Values) -> list[Any]:
    """Sizes and times of all files that the result depends on, by the name of what reads them."""
    read: list[tuple[str, Any]] = [("image", image)]
    read += [(name, getattr(options, name)) for name in PICTURES[1:] if getattr(options, name) not in _no_file(name)]
    read += [(name, one) for name in ADAPTERS for one in getattr(options, name)]
    read += [(name, settings[name]) for name in NAMES_OR_FILES if isinstance(settings.get(name), str)]
    return [
        [name, remote.stamp(path, f"--{name.replace('_', '-')}") if remote.is_remote(path) else _local(path)]
        for name, path in read
    ]


def _no_file(name: str) -> tuple[Any, ...]:
    return (None, *WORDS.get(name, ()))


def _local(path: str) -> list[Any]:
    return [list(one[1:]) for one in stamp(path) if isinstance(one, tuple)]


def _identity(given: Values, options: EditOptions, settings: Values, stamps: list[Any]) -> str:
    """Paths as the row has them: a folder that has moved with its manifest holds the same rows."""
    said = {name: str(given[name]) for name in ("image", *PICTURES, *ADAPTERS) if name in given}
    return digest({**options.model_dump(mode="json", exclude=set(MACHINE)), **said}, {"set": settings}, str(stamps))
