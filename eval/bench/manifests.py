"""Benchmarks by name, and a manifest for anybody's own pictures.

A manifest: YAML or JSON lines with `image` and `prompt`, relative to it.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.bench import ctrlx, pie, ti2i
from eval.bench.cases import Bench, Case
from eval.bench.files import read, safe_key
from eval.bench.mini_files import NAMES, load_mini, sized
from eval.bench.world import world_side
from eval.files import parsed
from freectl.errors import InputError
from freectl.files import pictures
from freectl.files.paths import check_file, is_file

_MANIFEST = "a .yaml or .jsonl file of entries with image and prompt"
PUBLISHED: dict[str, tuple[Callable[[Path], Bench], str]] = {
    "pie": (pie.load_pie, pie.LAYOUT),
    "imagenet-r-ti2i": (ti2i.load_ti2i, ti2i.LAYOUT),
    "ctrl-x": (ctrlx.load_prompts, ctrlx.LAYOUT),
    "ctrl-x-pairs": (ctrlx.load_pairs, ctrlx.LAYOUT),
}
"""Published benchmarks: the reader of the folder `--data`, and what lies in it."""


class Entry(BaseModel):
    """One line of a manifest; only `image` and `prompt` are needed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    prompt: str = Field(min_length=1)
    source_prompt: str = ""
    kind: str = "edit"
    key: str | None = None
    mask: str | None = None
    concept: str | None = None


def load_manifest(path: Path) -> Bench:
    """A manifest of one's own.

    Raises:
        InputError: unreadable, an entry with missing or unknown fields, or a picture or mask that is missing, none, or
            does not fit the other.
    """
    parse = yaml.safe_load if path.suffix != ".jsonl" else _json_lines
    entries = parsed(path, parse, _MANIFEST, option="--bench")
    if not isinstance(entries, list) or not entries:
        raise InputError("--bench", f"'{path}' without entries", _MANIFEST)
    cases = tuple(_case(index, raw, path) for index, raw in enumerate(entries))
    if len({case.key for case in cases}) < len(cases):
        raise InputError("--bench", f"'{path}' with a key that occurs twice", "keys that differ")
    return Bench(path.stem, "plain", cases, "pictures of a manifest")


def _case(index: int, raw: Any, path: Path) -> Case:
    """An entry of the manifest at `path`, its pictures looked at."""
    try:
        entry = Entry.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "entry"
        raise InputError("--bench", f"entry {index} of '{path}': {where}: {first['msg']}", _MANIFEST) from None
    image, mask = path.parent / entry.image, path.parent / entry.mask if entry.mask else None
    for file in filter(None, (image, mask)):
        check_file(file, "--bench", "pictures beside the manifest")
    size = read(image, "--bench").size
    if mask:
        pictures.load_mask(mask, size, "--bench")
    return Case(
        key=safe_key(entry.key or f"{index:04d}-{image.stem}"),
        kind=entry.kind,
        source_prompt=entry.source_prompt,
        prompt=entry.prompt,
        picture=partial(read, image, "--bench"),
        mask=partial(pictures.load_mask, mask, size, "--bench") if mask else None,
        concept=entry.concept,
        files=(image, mask) if mask else (image,),
    )


def load_bench(name: str, data: Path | None = None, conditions: Path | None = None, model: str = "mini") -> Bench:
    """The benchmark of that name, or a manifest's path.

    Args:
        data, conditions: folders of published benchmarks.
        model: that is to draw: scenes of the embedded world are shown at the size that it knows.

    Raises:
        InputError: an unknown name, or a file that is missing or of another layout.
    """
    if conditions is not None and name != "imagenet-r-ti2i":
        raise InputError("--conditions", f"given for {name}", "nothing, or --bench imagenet-r-ti2i")
    if name in PUBLISHED:
        load, layout = PUBLISHED[name]
        if data is None:
            raise InputError("--data", "nothing", layout)
        return load(data) if conditions is None else ti2i.load_ti2i(data, conditions)
    if data is not None:
        raise InputError("--data", f"given for {name}", f"nothing, or --bench {', '.join(PUBLISHED)}")
    if name.partition(":")[0] in ("mini", "mini-held-out", "mini-style", "mini-control"):
        return sized(load_mini(name), world_side(model))
    if not is_file(name):
        allowed = f"{NAMES}, {', '.join(PUBLISHED)}, or {_MANIFEST}"
        raise InputError("--bench", f"'{name}', neither a name nor a file", allowed)
    return load_manifest(Path(name))


def _json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]
