"""Paths that people give: what is there, said without raising for names that no file system can hold."""

import os
import stat
from pathlib import Path

from freectl.errors import InputError

Given = str | os.PathLike[str]
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
WEB = ("http://", "https://", "ftp://", "s3://", "gs://")


def at_home(path: Given) -> Path:
    """The path with a leading `~` or `~name` replaced by that home, or as it is where there is no such home."""
    return Path(os.path.expanduser(path))


def is_file(path: Given) -> bool:
    """Whether a regular file is there; False also for names too long and folders that may not be entered."""
    return os.path.isfile(path)


def is_folder(path: Given) -> bool:
    """Whether a folder is there; False as in `is_file`."""
    return os.path.isdir(path)


def there(path: Given) -> bool:
    """Whether anything is there, a broken link included."""
    return os.path.lexists(path)


def same(one: Given, other: Given) -> bool:
    """Whether two paths lead to one file; False where either leads to none."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def check_file(path: Given, option: str, allowed: str, *, piped: bool = False) -> Path:
    """Return `path` after checking that it is a regular file.

    Args:
        piped: whether a pipe that the caller holds open (`/dev/fd/63`, as shells make them) is one too.

    Raises:
        InputError: nothing there, a folder, a device, a pipe, a web address, or a folder that may not be entered.
    """
    name = os.fspath(path)
    if name.lower().startswith(WEB):
        raise InputError(option, f"'{name}', a web address", f"{allowed}; download it first")
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        raise InputError(option, f"no file '{name}'", allowed) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(option, f"'{name}', unreadable ({reason})", allowed) from error
    if piped and name.startswith(_DESCRIPTORS) and not stat.S_ISDIR(mode):
        return Path(name)
    if not stat.S_ISREG(mode):
        kind = next((text for test, text in _KINDS if test(mode)), "a device")
        raise InputError(option, f"'{name}', {kind}", allowed)
    return Path(name)


def made_folder(path: Given, option: str) -> Path:
    """Return a folder after making it where it is missing.

    Raises:
        InputError: it cannot be made, or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(option, f"'{folder}' ({reason})", "a folder that can be made") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(option, f"the folder '{folder}', not writable", "a writable folder")
    return folder


def stamp(path: Given) -> tuple:
    """What changes when a file, or any file of a folder, is written anew: sizes and times in ns; () for no path."""
    found: list[tuple[str, int, int]] = []
    try:
        if os.path.isfile(path):
            about = os.stat(path)
            return ((os.fspath(path), about.st_size, about.st_mtime_ns),)
        for folder, _, names in os.walk(path):
            for name in names:
                about = os.stat(os.path.join(folder, name))
                found.append((os.path.join(folder, name), about.st_size, about.st_mtime_ns))
    except (OSError, ValueError):  # removed meanwhile: the next reader says so
        return ("gone", *sorted(found))
    return tuple(sorted(found))
