"""The config.json of a weights folder, checked before anything else of the folder is read."""

import json
import re
from pathlib import Path
from typing import Any

from gan_baselines.errors import InputError

FORMAT = "gan_baselines/1"
FOLDER = "a weights folder (config.json and *.safetensors) that `gan-baselines train` or `convert` wrote"
SHIPPED = Path(__file__).parent / "shipped"
DIRECTIONS = ("AB", "BA")
_NAME = re.compile(r"\w{1,40}")  # names become parts of file names


def shipped_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find_weights(folder: Path | str) -> Path:
    """Return `folder`, or where the shipped weights of that name lie. A folder of that name comes first."""
    return SHIPPED / folder if str(folder) in shipped_names() and not Path(folder).exists() else Path(folder)


def read_record(folder: Path | str, option: str = "--weights") -> dict[str, Any]:
    """Read the config.json of a weights folder, or of shipped weights by their name.

    Its lists "generators", "discriminators" and "helpers" name the networks, "translators" the directions.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    try:
        record = json.loads((find_weights(folder) / "config.json").read_text(encoding="utf-8"))
        known = record["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if _is_file(inside := Path(folder) / "weights" / "config.json"):
            raise InputError(option, f"the run '{folder}'", f"its weights folder '{inside.parent}'") from error
        names = ", ".join(shipped_names())
        allowed = f"{FOLDER}, or the name of shipped weights: {names}" if names else FOLDER
        raise InputError(option, f"'{folder}' without a readable config.json", allowed) from error
    if not known:
        raise InputError(option, f"'{folder}' of format '{record['format']}'", FORMAT)
    return _complete(record, folder, option)


def _complete(record: dict[str, Any], folder: Path | str, option: str) -> dict[str, Any]:
    record = {"discriminators": [], "helpers": [], "about": {}, **record}
    for kind in ("generators", "discriminators", "helpers"):
        names = record.get(kind)
        if not isinstance(names, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise InputError(option, f"'{folder}' whose config.json lists no {kind}", FOLDER)
    if not record["generators"] or not isinstance(record.get("model"), dict) or not isinstance(record["about"], dict):
        raise InputError(option, f"'{folder}' whose config.json lacks generators, model or about", FOLDER)
    # files from before translators were named apart
    record.setdefault("translators", [name for name in record["generators"] if name in DIRECTIONS])
    if not isinstance(record["translators"], list) or set(record["translators"]) - set(DIRECTIONS):
        raise InputError(option, f"'{folder}' with translators {record['translators']}", ", ".join(DIRECTIONS))
    return record


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system, a folder that may not be entered
        return False
