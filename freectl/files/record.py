"""Pictures that are written, and the JSON record of a run they carry; every file is whole or absent."""

import json
import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from freectl.errors import FreectlError, InputError
from freectl.files.atomic import atomic_write
from freectl.files.opening import FORMATS
from freectl.files.parsing import MAX_JSON, parse_json, parse_yaml
from freectl.files.paths import check_file, is_file, is_folder

__all__ = ["atomic_write"]

TEXT_KEY, MARK_KEY = "freectl", "freectl-run"
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
BESIDE = tuple(suffix for suffix, kind in WRITABLE.items() if kind != "PNG")
"""Endings of pictures whose record is a file beside them."""
_LONGEST = 240  # file systems take 255 bytes, and names get endings and numbers
_DESCRIPTION = 0x010E  # the EXIF entry that carries the mark where there are no text chunks
HEAD = ("method", "model", "prompt", "seed", "steps")
"""Options of a run that a record has at its top; the others are among its settings."""
RESULTS = ("command", "settings", "output", "about", "cost", "warnings")
"""Keys of a record that are no options of a run, or that hold them."""
_CONFIGS = "a .json or .yaml file, or a picture that freectl wrote"


def dumps(record: dict[str, Any]) -> str:
    """Return the record as one line of ASCII JSON with sorted keys.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is not plain JSON.
    """
    return json.dumps(record, sort_keys=True, allow_nan=False)


def embed(record: dict[str, Any] | None, mark: str = "") -> PngInfo:
    """Return the text chunks that carry a record and a mark in a PNG, for `Image.save(..., pnginfo=...)`."""
    info = PngInfo()
    if record is not None:
        info.add_text(TEXT_KEY, dumps(record))
    if mark:
        info.add_text(MARK_KEY, mark)
    return info


def sidecar(path: str | Path) -> Path:
    """Return where the record of a JPEG or WebP lies: `out.jpg` -> `out.jpg.json`."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def check_output(path: str | os.PathLike[str], option: str = "--output") -> Path:
    """Return `path` as a Path after checking that a picture can be written there; writes nothing.

    Raises:
        InputError: a folder, an unknown extension, or a parent folder that is missing or not writable.
    """
    target = Path(path)
    if is_folder(target):
        raise InputError(option, f"'{target}', a folder", "a file name, such as out.png")
    if target.suffix.lower() not in WRITABLE:
        raise InputError(option, f"'{target}' with the extension '{target.suffix}'", ", ".join(WRITABLE))
    if len(os.fsencode(target.name)) > _LONGEST:
        raise InputError(option, f"'{target}', a name of more than {_LONGEST} bytes", "a shorter one")
    if not is_folder(target.parent):
        raise InputError(option, f"no folder '{target.parent}'", "an existing folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(option, f"the folder '{target.parent}', not writable", "a writable folder")
    return target


def save_image(
    image: Image.Image,
    path: str | os.PathLike[str],
    record: dict[str, Any] | None = None,
    *,
    mark: str = "",
    option: str = "--output",
) -> Path:
    """Write `image` by the extension of `path`, whole or not at all, and return the path.

    RGB, with transparency where the picture and the format have it. The record goes into a PNG's text chunk, or into
    `<name>.json` beside a JPEG or WebP.

    Args:
        mark: what tells files of the same settings, see `read_mark`.

    Raises:
        InputError: as `check_output`.
        FreectlError: the disk is full or the file cannot be written; no temporary file is left.
        ValueError: the record holds NaN or infinity.
    """
    target = check_output(path, option)
    kind = WRITABLE[target.suffix.lower()]
    options: dict[str, Any] = {"pnginfo": embed(record, mark)} if kind == "PNG" else {"quality": 95}
    if kind != "PNG" and mark:
        exif = Image.Exif()
        exif[_DESCRIPTION] = f"{MARK_KEY} {mark}"
        options["exif"] = exif
    text = b"" if record is None else f"{dumps(record)}\n".encode()
    if image.mode != "RGB" and (image.mode != "RGBA" or kind == "JPEG"):
        image = image.convert("RGB")
    try:
        with ExitStack() as files:  # both files are written in full before either becomes visible
            if kind != "PNG" and text:
                beside = files.enter_context(atomic_write(sidecar(target)))
                beside.write(text)
                beside.flush()
            image.save(files.enter_context(atomic_write(target)), kind, **options)
    except (OSError, ValueError) as error:  # ValueError: more pixels a side than the format can hold
        reason = getattr(error, "strerror", None) or error
        raise FreectlError(f"{option}: could not write '{target}': {reason}") from error
    return target


def read_mark(path: Path) -> str | None:
    """The mark that `save_image` left in a picture; None where there is none, or no picture."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            text = picture.info.get(MARK_KEY) or picture.getexif().get(_DESCRIPTION, "")
    except Exception:  # decoders raise whatever the damaged bytes lead them to
        return None
    return str(text).removeprefix(f"{MARK_KEY} ") or None


def read_record(path: str | Path, option: str = "--config") -> dict[str, Any]:
    """Return the record of a picture freectl wrote: from the PNG's text chunk, or from the file beside a JPEG or WebP.

    Raises:
        InputError: missing or unreadable file, no record in it, or a damaged record.
    """
    path = check_file(path, option, _CONFIGS)
    if path.suffix.lower() in BESIDE:
        if not is_file(sidecar(path)):
            raise InputError(option, f"'{path}' without its record '{sidecar(path).name}'", _CONFIGS)
        return parse_json(_read_text(sidecar(path), option), path, option)
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            # what precedes the pixels is known without decoding them; other programs move it behind
            text = picture.info.get(TEXT_KEY) or picture.text.get(TEXT_KEY)  # type: ignore[attr-defined]
    except Exception as error:  # decoders raise whatever the damaged bytes lead them to
        raise InputError(option, f"'{path}', not a readable PNG ({error})", _CONFIGS) from error
    if text is None:
        raise InputError(option, f"'{path}', a PNG without a freectl record", _CONFIGS)
    return parse_json(text, path, option)


def read_config(path: str | Path, option: str = "--config") -> dict[str, Any]:
    """Return the mapping in a .json or .yaml file, or the record of a picture freectl wrote.

    Raises:
        InputError: missing file, unknown extension, invalid content, not a mapping, or keys that are not text.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in WRITABLE:
        return read_record(path, option)
    if suffix == ".json":
        return parse_json(_read_text(path, option), path, option)
    if suffix in (".yaml", ".yml"):
        return parse_yaml(_read_text(path, option), path, option)
    raise InputError(option, f"'{path}'", _CONFIGS)


def head(options: Any) -> dict[str, Any]:
    """The options that a record has at its top."""
    return {name: getattr(options, name) for name in HEAD}


def other_options(options: Any) -> dict[str, Any]:
    """The options that a record has among its settings, as plain JSON."""
    return options.model_dump(mode="json", exclude=set(HEAD))


def split(
    record: dict[str, Any], command: str, options: Collection[str], results: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record or config file as (run options, method settings); an option without a value is as if not given.

    Args:
        options: names of run options. results: keys of a record of this command that are neither.

    Raises:
        InputError: the record is of another command.
    """
    check_command(record, command)
    flat = {key: value for key, value in record.items() if key not in {*RESULTS, *results}}
    flat |= record.get("settings", {})
    chosen = {key: value for key, value in flat.items() if key in options and value is not None}
    return chosen, {key: value for key, value in flat.items() if key not in options}


def check_command(record: dict[str, Any], command: str, option: str = "--config") -> None:
    """Refuse the record of another command; a file written by hand may name none.

    Raises:
        InputError: the record is of another command, which is named.
    """
    settings = record.get("settings")
    of_edit = isinstance(settings, dict) and "image" in settings
    made_by = record.get("command", "edit" if of_edit else command)
    if made_by != command:
        raise InputError(option, f"a record of `freectl {made_by}`", f"freectl {made_by} {option} FILE")


def _read_text(path: Path, option: str) -> str:
    check_file(path, option, _CONFIGS)
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return stream.read(MAX_JSON + 1)
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", _CONFIGS) from error
    except UnicodeDecodeError as error:
        raise InputError(option, f"'{path}', not UTF-8 text", _CONFIGS) from error
