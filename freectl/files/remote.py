"""Files elsewhere, by any address that fsspec knows (s3://, gs://, https://, memory://), read as local ones are."""

import hashlib
import os
import posixpath
import tempfile
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files.atomic import atomic_write
from freectl.files.opening import MAX_BYTES

_HINT = "an address that fsspec can open"


def is_remote(path: str) -> bool:
    """Whether a text is an address and no path."""
    return "://" in path


def joined(base: str, path: str) -> str:
    """A path relative to the folder of an address; an address is itself."""
    return path if is_remote(path) else f"{base.rpartition('/')[0]}/{path}"


def inside(address: str, folder: str) -> bool:
    """Whether an address lies below another one, once its dots are resolved."""
    scheme, _, rest = address.partition("://")
    of, _, below = folder.partition("://")
    return scheme == of and f"{posixpath.normpath(rest)}/".startswith(f"{posixpath.normpath(below)}/")


def stamp(address: str, option: str) -> list[Any]:
    """What changes when the file is written anew: its size, and what else its place tells.

    Raises:
        InputError: nothing there, or the place cannot be asked.
    """
    system, path = _opened(address, option)
    try:
        about = system.info(path)
    except Exception as error:  # every system raises its own
        raise InputError(option, f"'{address}', unreadable ({_reason(error)})", _HINT) from error
    return [about.get("size"), *(str(about[key]) for key in ("ETag", "etag", "mtime", "LastModified") if key in about)]


def fetched(address: str, option: str, limit: int = MAX_BYTES) -> Path:
    """A local copy, in a temporary folder of this process, named by its address; fetched once.

    Raises:
        InputError: nothing there, more than `limit` bytes, or the place cannot be asked.
    """
    folder = _folder()
    local = folder / (hashlib.sha256(address.encode()).hexdigest()[:16] + os.path.splitext(address)[1][:10])
    system, path = _opened(address, option)
    try:
        with system.open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except Exception as error:  # every system raises its own
        raise InputError(option, f"'{address}', unreadable ({_reason(error)})", _HINT) from error
    if len(data) > limit:
        raise InputError(option, f"'{address}', more than {limit // 10**6} MB", "a smaller file")
    with atomic_write(local) as file:
        file.write(data)
    return local


_FOLDERS: dict[int, Any] = {}  # by process: a worker must not remove its parent's


def _folder() -> Path:
    if os.getpid() not in _FOLDERS:
        _FOLDERS[os.getpid()] = tempfile.TemporaryDirectory(prefix="freectl-fetched-")
    return Path(_FOLDERS[os.getpid()].name)


def _opened(address: str, option: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise InputError(option, f"'{address}' without fsspec", "pip install fsspec, or a local path") from error
    try:
        return fsspec.core.url_to_fs(address)
    except Exception as error:  # an unknown scheme, or a package that it needs
        raise InputError(option, f"'{address}' ({_reason(error)})", _HINT) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
