"""Published benchmarks in the file layouts they are published in, and a manifest for anybody's own pictures.

PIE-Bench: a folder with `mapping_file.json` and `annotation_images/`. ImageNet-R-TI2I: a folder with
`imnetr-ti2i.yaml` and one folder a class. A manifest: YAML or JSON lines with `image` and `prompt`, relative to it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.cases import Bench, Case
from freectl import image_io
from freectl.errors import InputError

PIE_KINDS = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change colour",
    "change material",
    "change background",
    "change style",
)
"""PIE-Bench's `editing_type_id` 0 to 9."""
PIE_SIDE = 512
TI2I_FILE = "imnetr-ti2i.yaml"
_PIE = "the folder of PIE-Bench: mapping_file.json and annotation_images/"
_TI2I = f"the folder of ImageNet-R-TI2I: {TI2I_FILE} and one folder a class"
_PIE_ABOUT = "PIE-Bench: background scores inside the published masks, target prompt for CLIP"
_MANIFEST = "a .yaml or .jsonl file of entries with image and prompt"


def load_pie(folder: Path) -> Bench:
    """PIE-Bench (Ju et al., ICLR 2024): 700 pictures of 512 px, ten edit types.

    Raises:
        InputError: a file is missing or of another layout.
    """
    path = folder / "mapping_file.json"
    entries = _parsed(path, json.loads, _PIE)
    if not isinstance(entries, dict):
        raise InputError("--data", f"'{path}', not a mapping", _PIE)
    try:
        cases = tuple(_pie_case(key, entry, folder / "annotation_images") for key, entry in entries.items())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError("--data", f"'{path}' with an entry that does not fit ({error!r})", _PIE) from error
    return Bench("pie", "pie", cases, _PIE_ABOUT, files=(path,))


def _pie_case(key: str, entry: dict[str, Any], pictures: Path) -> Case:
    path = pictures / entry["image_path"]
    _must_exist(path, _PIE)
    runs = check_runs([int(number) for number in entry["mask"]])
    words = entry.get("blended_word", "").split()
    return Case(
        key=_safe(key),
        kind=PIE_KINDS[int(entry["editing_type_id"])],
        source_prompt=_without_brackets(entry["original_prompt"]),
        prompt=_without_brackets(entry["editing_prompt"]),
        picture=partial(_read, path),
        mask=partial(decode_runs, runs),
        concept=words[0] if words else None,
        files=(path,),
    )


def decode_runs(runs: Sequence[int], side: int = PIE_SIDE) -> Image.Image:
    """A mask stored as start, length, start, length, ... over the pixels row by row; mode "L", 0 or 255.

    The outermost pixels are always inside, as in the benchmark's own decoder: its annotations err there.

    Raises:
        ValueError: see `check_runs`.
    """
    check_runs(runs, side)
    flat = np.zeros(side * side, dtype=np.uint8)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 255
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = 255
    mask[:, [0, -1]] = 255
    return Image.fromarray(mask)


def check_runs(runs: Sequence[int], side: int = PIE_SIDE) -> list[int]:
    """The runs, checked without decoding them.

    Raises:
        ValueError: an odd count, a start outside the picture, or a negative length.
    """
    starts, lengths = runs[::2], runs[1::2]
    if len(runs) % 2 or any(not 0 <= start <= side * side for start in starts) or any(n < 0 for n in lengths):
        raise ValueError("mask is not pairs of start and length")
    return list(runs)


def load_ti2i(folder: Path, conditions: Path | None = None) -> Bench:
    """ImageNet-R-TI2I (Tumanyan et al., CVPR 2023): 30 pictures, 5 prompts each.

    Args:
        conditions: a folder with the same relative paths (.png allowed) that holds, say, the edges or depth of each
            picture: methods are then given those, and structure is still compared with the pictures themselves.

    Raises:
        InputError: a file is missing or of another layout.
    """
    path = folder / TI2I_FILE
    entries = _parsed(path, yaml.safe_load, _TI2I)
    if not isinstance(entries, list):
        raise InputError("--data", f"'{path}', not a list", _TI2I)
    try:
        cases = tuple(case for entry in entries for case in _ti2i_cases(entry, folder, conditions))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("--data", f"'{path}' with an entry that does not fit ({error!r})", _TI2I) from error
    what = "ImageNet-R-TI2I" + (f", conditions of {conditions.name}" if conditions else "")
    return Bench("imagenet-r-ti2i", "ti2i", cases, what)


def _ti2i_cases(entry: dict[str, Any], folder: Path, conditions: Path | None) -> Iterator[Case]:
    given = entry.get("source_prompt")
    picture = _ti2i_picture(entry.get("init_img"), given, folder)
    rendition, kind = picture.stem.split("_")[0], picture.parent.name
    source_prompt = given or f"{_article(rendition)} {rendition} of {_article(kind)} {kind}"
    structure = _condition_of(picture.relative_to(folder), conditions) if conditions else picture
    for index, prompt in enumerate(entry["target_prompts"]):
        yield Case(
            key=_safe(f"{kind}-{picture.stem}-{index}"),
            kind=kind,
            source_prompt=source_prompt,
            prompt=prompt,
            picture=partial(_read, structure),
            original=partial(_read, picture) if conditions else None,
            concept=kind if kind in source_prompt.lower().split() else None,
            files=(structure, picture) if conditions else (picture,),
        )


def _ti2i_picture(stored: str | None, source_prompt: str | None, folder: Path) -> Path:
    """The published paths differ in case from the published folders, and one entry has none but tells its prompt."""
    if stored is None:
        match = re.search(r"an? (\w+) of an? (\w+)", source_prompt or "")
        found = sorted((folder / match[2]).glob(f"{match[1]}_*")) if match else []
        if len(found) != 1:
            raise InputError("--data", f"an entry without init_img and source_prompt '{source_prompt}'", _TI2I)
        return found[0]
    parts = stored.strip("/").split("/")[-2:]
    for path in (folder.joinpath(*parts), folder.joinpath(*parts).with_name(parts[-1].lower())):
        for own in (path, folder / parts[0].lower() / path.name):
            if own.exists():
                return own
    raise InputError("--data", f"no file '{folder.joinpath(*parts)}'", _TI2I)


def _condition_of(relative: Path, conditions: Path) -> Path:
    for path in (conditions / relative, (conditions / relative).with_suffix(".png")):
        if path.exists():
            return path
    raise InputError("--conditions", f"no file '{conditions / relative}'", "one picture for each of the benchmark's")


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
        InputError: unreadable, an entry with missing or unknown fields, or a picture that does not exist.
    """
    parse = yaml.safe_load if path.suffix != ".jsonl" else _json_lines
    entries = _parsed(path, parse, _MANIFEST, option="--bench")
    if not isinstance(entries, list) or not entries:
        raise InputError("--bench", f"'{path}' without entries", _MANIFEST)
    cases = []
    for index, raw in enumerate(entries):
        try:
            entry = Entry.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "entry"
            raise InputError("--bench", f"entry {index} of '{path}': {where}: {first['msg']}", _MANIFEST) from None
        image, mask = path.parent / entry.image, path.parent / entry.mask if entry.mask else None
        for file in filter(None, (image, mask)):
            _must_exist(file, "pictures beside the manifest", "--bench")
        cases.append(
            Case(
                key=_safe(entry.key or f"{index:04d}-{image.stem}"),
                kind=entry.kind,
                source_prompt=entry.source_prompt,
                prompt=entry.prompt,
                picture=partial(_read, image),
                mask=partial(_read_mask, mask, image) if mask else None,
                concept=entry.concept,
                files=(image, mask) if mask else (image,),
            )
        )
    if len({case.key for case in cases}) < len(cases):
        raise InputError("--bench", f"'{path}' with a key that occurs twice", "keys that differ")
    return Bench(path.stem, "plain", tuple(cases), "pictures of a manifest")


def load_bench(name: str, data: Path | None = None, conditions: Path | None = None) -> Bench:
    """The benchmark of that name, or a manifest's path.

    Raises:
        InputError: an unknown name, or a file that is missing or of another layout.
    """
    if conditions is not None and name != "imagenet-r-ti2i":
        raise InputError("--conditions", f"given for {name}", "nothing, or --bench imagenet-r-ti2i")
    if name in ("pie", "imagenet-r-ti2i"):
        if data is None:
            raise InputError("--data", "nothing", _PIE if name == "pie" else _TI2I)
        return load_pie(data) if name == "pie" else load_ti2i(data, conditions)
    if data is not None:
        raise InputError("--data", f"given for {name}", "nothing, or --bench pie or imagenet-r-ti2i")
    if name.partition(":")[0] in ("mini", "mini-held-out", "mini-style"):
        from eval.bench import load_mini

        return load_mini(name)
    if not Path(name).is_file():
        allowed = f"mini, mini:SEED, mini-held-out, mini-style:FROM:TO, pie, imagenet-r-ti2i, or {_MANIFEST}"
        raise InputError("--bench", f"'{name}', neither a name nor a file", allowed)
    return load_manifest(Path(name))


def _parsed(path: Path, parse: Any, allowed: str, option: str = "--data") -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", allowed) from error
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(option, f"'{path}', damaged ({' '.join(str(error).split())})", allowed) from error


def _json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _must_exist(path: Path, allowed: str, option: str = "--data") -> None:
    if not path.is_file():
        raise InputError(option, f"no file '{path}'", allowed)


def _read(path: Path) -> Image.Image:
    return image_io.load_image(path, "--data").image


def _read_mask(path: Path, image: Path) -> Image.Image:
    with Image.open(image) as picture:
        size = picture.size
    return image_io.load_mask(path, size, "--bench")


def _without_brackets(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _safe(key: str) -> str:
    return re.sub(r"[^\w.-]+", "-", key)
