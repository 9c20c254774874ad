"""Files and folders that are written whole or not at all, and the early check that they can be written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from gan_baselines.errors import GanError, InputError


def check_new(folder: Path, option: str = "--out", allowed: str = "a new or empty folder") -> None:
    """Refuse a folder that holds something already, or that cannot be made. Writes nothing.

    Raises:
        InputError: not a folder, not empty, or below a file or a folder that may not be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(option, f"'{folder}', which is not an empty folder", allowed)
    parent = folder.absolute()
    while not os.path.exists(parent):
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise InputError(option, f"'{folder}', where '{parent}' cannot be written", "a folder that can be made")


def replace_text(path: Path, text: str) -> None:
    """Write a text file in the place of `path`."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into a temporary folder, then put it in the place of `folder`.

    Raises:
        GanError: writing failed; an earlier folder is kept.
    """
    folder = folder.absolute()
    partial, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    try:
        for stale in (partial, old):
            shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        for path in partial.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise GanError(f"cannot write '{folder}': {error}") from error
