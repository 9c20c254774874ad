"""Digests of large files, kept by path, size and time of change, so that they are read for them once."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from freectl.files.atomic import atomic_write
from freectl.files.cache_place import cache_root

SETTLED_SECONDS = 2
"""A file that changed less than this before may change again without its time of change telling."""


def kept_digest(files: Sequence[Path], what: str, make: Callable[[], str]) -> str:
    """The digest of files that `make` computes, or the one that it gave while they were what they are now.

    Args:
        what: is digested of them; another name keeps another digest.

    Raises:
        OSError: one is not there.
    """
    paths = [file.resolve() for file in files]
    stamps = [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths for stat in (path.stat(),)]
    known = json.dumps([what, stamps])
    name = hashlib.sha256(json.dumps([what, list(map(str, paths))]).encode()).hexdigest()
    place = cache_root() / "digests" / f"{name[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(place.read_text(encoding="utf-8"))
        if stored["files"] == known and len(bytes.fromhex(stored["digest"])) == hashlib.sha256().digest_size:
            return stored["digest"]
    digest = make()
    if time.time() - max(stamp[2] for stamp in stamps) / 1e9 > SETTLED_SECONDS:
        with suppress(OSError):  # a folder that cannot be written: computed again next time
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place) as stream:
                stream.write(json.dumps({"files": known, "digest": digest}).encode())
    return digest
