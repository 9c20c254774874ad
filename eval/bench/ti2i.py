"""ImageNet-R-TI2I in its published layout: a folder with `imnetr-ti2i.yaml` and one folder a class."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from eval.bench.cases import Bench, Case
from eval.bench.files import read, safe_key
from eval.files import parsed
from freectl.errors import InputError

TI2I_FILE = "imnetr-ti2i.yaml"
LAYOUT = f"the folder of ImageNet-R-TI2I: {TI2I_FILE} and one folder a class"


def load_ti2i(folder: Path, conditions: Path | None = None) -> Bench:
    """ImageNet-R-TI2I (Tumanyan et al., CVPR 2023): 30 pictures, 5 prompts each.

    Args:
        conditions: a folder with the same relative paths (.png allowed) that holds, say, the edges or depth of each
            picture, or a folder of several such (canny, hed, sketch, depth, normal: the columns of FreeControl's
            Table 1): methods then follow those as `freectl control` does, and structure is still compared with the
            pictures themselves. Kinds of cases are then the folders' names.

    Raises:
        InputError: a file is missing or of another layout.
    """
    path = folder / TI2I_FILE
    entries = parsed(path, yaml.safe_load, LAYOUT)
    if not isinstance(entries, list):
        raise InputError("--data", f"'{path}', not a list", LAYOUT)
    shown = _kinds(conditions, folder) if conditions else [None]
    try:
        cases = tuple(case for one in shown for entry in entries for case in _ti2i_cases(entry, folder, one))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("--data", f"'{path}' with an entry that does not fit ({error!r})", LAYOUT) from error
    named = ", ".join(one.name for one in shown if one)
    what = "ImageNet-R-TI2I" + (f", conditions of {named}" if named else "")
    if conditions:  # a first few of a kind are then of different pictures
        cases = tuple(sorted(cases, key=lambda case: case.key.rpartition("-")[2]))
    return Bench("imagenet-r-ti2i", "ti2i", cases, what)


def _ti2i_cases(entry: dict[str, Any], folder: Path, conditions: Path | None) -> Iterator[Case]:
    given = entry.get("source_prompt")
    picture = _ti2i_picture(entry.get("init_img"), given, folder)
    rendition, kind = picture.stem.split("_")[0], picture.parent.name
    source_prompt = given or f"{_article(rendition)} {rendition} of {_article(kind)} {kind}"
    structure = _condition_of(picture.relative_to(folder), conditions) if conditions else picture
    name, shown = f"{kind}-{picture.stem}", conditions.resolve().name if conditions else None
    for index, prompt in enumerate(entry["target_prompts"]):
        yield Case(
            key=safe_key(f"{shown.lower()}-{name}-{index}" if shown else f"{name}-{index}"),
            kind=shown.lower() if shown else kind,
            source_prompt=source_prompt,
            prompt=prompt,
            picture=partial(read, structure),
            original=partial(read, picture) if conditions else None,
            concept=kind if kind in source_prompt.lower().split() else None,
            files=(structure, picture) if conditions else (picture,),
        )


def _ti2i_picture(stored: str | None, source_prompt: str | None, folder: Path) -> Path:
    """The published paths differ in case from the published folders, and one entry has none but tells its prompt."""
    if stored is None:
        match = re.search(r"an? (\w+) of an? (\w+)", source_prompt or "")
        found = sorted((folder / match[2]).glob(f"{match[1]}_*")) if match else []
        if len(found) != 1:
            raise InputError("--data", f"an entry without init_img and source_prompt '{source_prompt}'", LAYOUT)
        return found[0]
    parts = stored.strip("/").split("/")[-2:]
    for path in (folder.joinpath(*parts), folder.joinpath(*parts).with_name(parts[-1].lower())):
        for own in (path, folder / parts[0].lower() / path.name):
            if own.exists():
                return own
    raise InputError("--data", f"no file '{folder.joinpath(*parts)}'", LAYOUT)


def _kinds(conditions: Path, folder: Path) -> list[Path]:
    """Folders of one kind of condition each: those inside, unless they are the classes of the data themselves."""
    if not conditions.is_dir():
        raise InputError("--conditions", f"'{conditions}'", "a folder, of one kind of condition or with one a kind")
    own = sorted(path for path in conditions.iterdir() if path.is_dir())
    classes = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    return [conditions] if not own or classes & {path.name.lower() for path in own} else own


def _condition_of(relative: Path, conditions: Path) -> Path:
    for path in (conditions / relative, (conditions / relative).with_suffix(".png")):
        if path.exists():
            return path
    raise InputError("--conditions", f"no file '{conditions / relative}'", "one picture for each of the benchmark's")


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"
