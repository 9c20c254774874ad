"""What a record may ask for: whoever sends a picture does not choose what this machine downloads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freectl.errors import InputError


def check_trusted(
    config: Path, record: Mapping[str, Any], options: Mapping[str, Any], named: Mapping[str, Any]
) -> None:
    """Refuse to fetch a model that only the record of a run names.

    A file written by hand is the user's own word; a record, in a picture or beside it, has the cost of its run.

    Args:
        options: the record's options. named: those of the command line.

    Raises:
        InputError: a model of the hub, for the run or a preprocessor, which the command line does not name.
    """
    if "cost" not in record:
        return
    for name, models in (("model", [options.get("model")]), ("preprocess", _models(options.get("preprocess")))):
        asked = next((str(one) for one in models if one and _from_hub(str(one))), None)
        if asked is not None and name not in named:
            found = f"'{config}', whose record asks for '{asked}' from the hub"
            raise InputError("--config", found, f"--trust-record, or --{name} with it on the command line")


def _models(preprocess: Any) -> list[str]:
    texts = [preprocess] if isinstance(preprocess, str) else list(preprocess or ())
    return [part for text in texts for part in str(text).partition("=")[2].split(",")]


def _from_hub(name: str) -> bool:
    from freectl.files.paths import at_home, there
    from freectl.pipelines.loading import HUB_ID

    return HUB_ID.fullmatch(name) is not None and not there(at_home(name))
