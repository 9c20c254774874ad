"""Headers of safetensors files: whether a file is whole and what it holds, told before anything expensive begins."""

import os
from pathlib import Path

from freectl.errors import InputError

Shapes = dict[str, tuple[int, ...]]
FILE = "a whole .safetensors file"
BASES = f"{FILE} of semantic bases"


def shapes(path: str | os.PathLike[str]) -> Shapes:
    """Name and shape of every tensor; reads the header alone, and sees whether the file is as long as it says.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is none.
    """
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def checked(path: str | os.PathLike[str], option: str, said: str | None = None, allowed: str = FILE) -> Shapes:
    """As `shapes`.

    Args:
        said: what the file is, in words; its path in quotes by default.

    Raises:
        InputError: no whole safetensors file.
    """
    from safetensors import SafetensorError

    try:
        return shapes(path)
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0][:120]
        raise InputError(option, f"{said or repr(os.fspath(path))}, damaged or truncated ({first})", allowed) from error


def check_folder(folder: Path, option: str) -> None:
    """Check the headers of all safetensors files of a folder and of those in it.

    Raises:
        InputError: one of them is not whole.
    """
    for path in sorted(folder.glob("**/*.safetensors")):
        checked(path, option)
