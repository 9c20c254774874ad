"""Headers of safetensors files: whether a file is whole and what it holds, told before anything expensive begins."""

import os
from pathlib import Path

from freectl.errors import InputError
from freectl.files.paths import at_home, check_file

Shapes = dict[str, tuple[int, ...]]
FILE = "a whole .safetensors file"
BASES = f"{FILE} of semantic bases"


def named(path: str | os.PathLike[str], option: str, allowed: str = "a .safetensors file") -> Path:
    """A file that is there and has the name of one, unread.

    Raises:
        InputError: missing, or of another kind.
    """
    file = check_file(at_home(path), option, allowed)
    if file.suffix.lower() != ".safetensors":
        raise InputError(option, f"'{path}'", "a .safetensors file; pickled ones are refused")
    return file


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
