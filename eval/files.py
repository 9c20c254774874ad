"""Where this package's data is, and how its files are read and written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.files.atomic import atomic_write
from freectl.files.paths import check_file
from freectl.files.pictures import load_image

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
"""Benchmark cases, plans of runs, published numbers."""


def parsed(path: Path, parse: Callable[[str], Any], allowed: str, option: str = "--data") -> Any:
    """A text file through `parse`.

    Raises:
        InputError: no regular file, unreadable or damaged; the message names the option and what is allowed.
    """
    try:
        return parse(check_file(path, option, allowed).read_text(encoding="utf-8"))
    except InputError:
        raise
    except OSError as error:
        raise InputError(option, f"'{path}', unreadable ({error.strerror or error})", allowed) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(option, f"'{path}', damaged ({' '.join(str(error).split())})", allowed) from error


def read_picture(path: Path) -> Image.Image:
    """A stored picture, RGB.

    Raises:
        FreectlError: missing or damaged.
    """
    try:
        return load_image(path, "--out").image
    except InputError as error:
        text = f"'{path}' is missing or damaged; delete it and run eval.run into its folder again, which makes it anew"
        raise FreectlError(text) from error


def made_folder(path: Path, option: str) -> Path:
    """The folder, created where it is missing.

    Raises:
        InputError: it cannot be; the message names the option.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(option, f"'{path}', {error.strerror or error}", "a writable folder") from error
    return path


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[BinaryIO]:
    """A stream whose bytes are at `path` when the block ends well, and nowhere if not; see `atomic_write`.

    Raises:
        FreectlError: the disk is full or the folder not writable; the message names the option.
    """
    try:
        with atomic_write(path) as stream:
            yield stream
    except OSError as error:
        raise FreectlError(f"{option}: could not write '{path}': {error.strerror or error}") from error


def check_target(path: Path | None, option: str, *, picture: bool = True) -> None:
    """See that a file can be written, before what it is to hold is made; None is none.

    Raises:
        InputError: its folder is not there, it is a folder itself, or no picture has its ending.
    """
    if path is None:
        return
    if picture and path.suffix.lower() not in Image.registered_extensions():
        raise InputError(option, f"'{path}'", "a picture's ending, such as .png or .webp")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(option, f"'{path}'", "a file in an existing folder")


def write_picture(path: Path, picture: Image.Image, option: str = "--out", **options: Any) -> None:
    """Write a picture whole or not at all, in the format of its ending; errors as `writing`.

    Args:
        options: of Pillow's `save`.

    Raises:
        InputError: Pillow has no format of that ending.
    """
    suffix = path.suffix.lower()
    if suffix not in Image.registered_extensions():
        raise InputError(option, f"'{path}'", "a picture's ending, such as .png or .webp")
    with writing(path, option) as stream:
        picture.save(stream, Image.registered_extensions()[suffix], **options)


def write_text(path: Path, text: str, option: str = "--out") -> None:
    """Write a text file whole or not at all; errors as `writing`."""
    with writing(path, option) as stream:
        stream.write(text.encode())
