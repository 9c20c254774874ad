"""Outputs and the JSON record of a run they carry: every file becomes visible whole or not at all."""

import json
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from freectl.errors import FreectlError, InputError

TEXT_KEY = "freectl"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
HEAD = ("method", "model", "prompt", "seed", "steps")
"""Options of a run that a record has at its top; the others are among its settings."""
RESULTS = ("command", "settings", "output", "about", "cost", "warnings")
"""Keys of a record that are no options of a run, or that hold them."""
_CONFIGS = "a .json or .yaml file, or a picture that freectl wrote"


@contextmanager
def atomic_write(path: str | Path, tag: str = "freectl") -> Iterator[BinaryIO]:
    """Yield a binary stream whose bytes appear at `path` only when the block ends without an exception.

    The bytes go to `.<tag>-<random>.tmp` in the same folder, are synced, then renamed; any exception removes it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{tag}-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def dumps(record: dict[str, Any]) -> str:
    """Return the record as one line of ASCII JSON with sorted keys.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is not plain JSON.
    """
    return json.dumps(record, sort_keys=True, allow_nan=False)


def embed(record: dict[str, Any]) -> PngInfo:
    """Return the text chunk that carries `record` in a PNG, for `Image.save(..., pnginfo=...)`."""
    info = PngInfo()
    info.add_text(TEXT_KEY, dumps(record))
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
    if target.is_dir():
        raise InputError(option, f"'{target}', a folder", "a file name, such as out.png")
    if target.suffix.lower() not in FORMATS:
        raise InputError(option, f"'{target}' with the extension '{target.suffix}'", ", ".join(FORMATS))
    if not target.parent.is_dir():
        raise InputError(option, f"no folder '{target.parent}'", "an existing folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(option, f"the folder '{target.parent}', not writable", "a writable folder")
    return target


def save_image(image: Image.Image, path: str | os.PathLike[str], record: dict[str, Any] | None = None) -> Path:
    """Write `image` as RGB by the extension of `path`, whole or not at all, and return the path.

    The record goes into a PNG's text chunk, or into `<name>.json` beside a JPEG or WebP.

    Raises:
        InputError: as `check_output`.
        FreectlError: the disk is full or the file cannot be written; no temporary file is left.
        ValueError: the record holds NaN or infinity.
    """
    target = check_output(path)
    kind = FORMATS[target.suffix.lower()]
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": 95}
    if kind == "PNG" and record is not None:
        options["pnginfo"] = embed(record)
    text = b"" if record is None else f"{dumps(record)}\n".encode()
    try:
        with ExitStack() as files:  # both files are written in full before either becomes visible
            if kind != "PNG" and text:
                beside = files.enter_context(atomic_write(sidecar(target)))
                beside.write(text)
                beside.flush()
            image.convert("RGB").save(files.enter_context(atomic_write(target)), kind, **options)
    except (OSError, ValueError) as error:  # ValueError: more pixels a side than the format can hold
        reason = getattr(error, "strerror", None) or error
        raise FreectlError(f"--output: could not write '{target}': {reason}") from error
    return target


def read_record(path: str | Path, option: str = "--config") -> dict[str, Any]:
    """Return the record of a picture freectl wrote: from the PNG's text chunk, or from the file beside a JPEG or WebP.

    Raises:
        InputError: missing or unreadable file, no record in it, or a damaged record.
    """
    path = Path(path)
    if FORMATS.get(path.suffix.lower(), "PNG") != "PNG":
        if path.is_file() and not sidecar(path).is_file():
            raise InputError(option, f"'{path}' without its record '{sidecar(path).name}'", _CONFIGS)
        return _parse_json(_read_text(sidecar(path) if path.is_file() else path, option), path, option)
    _check_file(path, option)
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            text = picture.text.get(TEXT_KEY)  # type: ignore[attr-defined]
    except Exception as error:  # decoders raise whatever the damaged bytes lead them to
        raise InputError(option, f"'{path}', not a readable PNG ({error})", _CONFIGS) from error
    if text is None:
        raise InputError(option, f"'{path}', a PNG without a freectl record", _CONFIGS)
    return _parse_json(text, path, option)


def read_config(path: str | Path, option: str = "--config") -> dict[str, Any]:
    """Return the mapping in a .json or .yaml file, or the record of a picture freectl wrote.

    Raises:
        InputError: missing file, unknown extension, invalid content, not a mapping, or keys that are not text.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return read_record(path, option)
    if suffix == ".json":
        return _parse_json(_read_text(path, option), path, option)
    if suffix in (".yaml", ".yml"):
        return _parse_yaml(_read_text(path, option), path, option)
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


def _check_file(path: Path, option: str) -> None:
    if path.is_dir():
        raise InputError(option, f"'{path}', a folder", _CONFIGS)
    if not path.exists():
        raise InputError(option, f"no file '{path}'", _CONFIGS)


def _read_text(path: Path, option: str) -> str:
    _check_file(path, option)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", _CONFIGS) from error
    except UnicodeDecodeError as error:
        raise InputError(option, f"'{path}', not UTF-8 text", _CONFIGS) from error


def _parse_json(text: str, path: Path, option: str) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        raise ValueError(f"the number {name} is not JSON")

    try:
        return _mapping(json.loads(text, parse_constant=no_constant), path, option)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(option, f"'{path}', invalid JSON ({error})", "one JSON object") from error


def _parse_yaml(text: str, path: Path, option: str) -> dict[str, Any]:
    try:
        return _mapping(yaml.safe_load(text), path, option)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else " ".join(str(error).split())
        raise InputError(option, f"'{path}', invalid YAML ({where})", "one YAML mapping") from error


def _mapping(value: Any, path: Path, option: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(option, f"'{path}' holding {type(value).__name__}", "one mapping of names to values")
    odd = [key for key in value if not isinstance(key, str)]
    if odd:
        raise InputError(option, f"'{path}' with the key {odd[0]!r}", "keys that are text")
    return value
