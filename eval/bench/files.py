"""What the readers of all benchmarks' files share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from freectl.errors import InputError
from freectl.files import pictures


def parsed(path: Path, parse: Callable[[str], Any], allowed: str, option: str = "--data") -> Any:
    """A text file through `parse`.

    Raises:
        InputError: unreadable or damaged; the message names the option and what is allowed.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", allowed) from error
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(option, f"'{path}', damaged ({' '.join(str(error).split())})", allowed) from error


def must_exist(path: Path, allowed: str, option: str = "--data") -> None:
    """Check that a file is there.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(option, f"no file '{path}'", allowed)


def read(path: Path, option: str = "--data") -> Image.Image:
    """A benchmark's picture, RGB.

    Raises:
        InputError: no picture.
    """
    return pictures.load_image(path, option).image


def safe_key(key: str) -> str:
    """The key with a hyphen for all that may not stand in a file's name."""
    return re.sub(r"[^\w.-]+", "-", key)
