"""A content-addressed cache of tensors: what is read back is what was written, or it is built again.

An entry is one safetensors file, `<root>/<kind>/<key[:2]>/<key>.safetensors`, with its metadata and a checksum of
everything in the header; one rename makes the whole entry visible.
"""

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from freectl.files.atomic import STALE_SECONDS, atomic_write
from freectl.files.cache_place import cache_limit, cache_root
from freectl.files.cache_total import RunningTotal

if TYPE_CHECKING:
    from torch import Tensor

Content = tuple[dict[str, "Tensor"], dict[str, Any]]

FORMAT_VERSION = 1  # part of every key: raise it when the meaning of stored tensors changes
_HEADER = "freectl"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One cached item: its size in bytes, its times in seconds since 1970, and the metadata given to `put`."""

    kind: str
    key: str
    bytes: int
    created: float
    last_used: float
    metadata: dict[str, Any]


def content_key(**ingredients: Any) -> str:
    """Return 64 hex digits that change with any ingredient: text, numbers, None, bytes, tensors; lists, dicts of them.

    The order of dict keys does not matter; lists and tuples are alike; 1, 1.0 and True differ.

    Raises:
        TypeError: an ingredient of another type.
    """
    text = json.dumps(["freectl", FORMAT_VERSION, _canonical(ingredients)])
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    # containers, floats and digests are tagged lists, so that no plain value can imitate them
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return ["float", float.__repr__(value)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", hashlib.sha256(value).hexdigest()]
    if isinstance(value, list | tuple):
        return ["list", *map(_canonical, value)]
    if isinstance(value, dict):
        return ["dict", *sorted(([_canonical(key), _canonical(value[key])] for key in value), key=json.dumps)]
    torch = sys.modules.get("torch")  # no tensor exists before torch is imported
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(flat).hexdigest()]
    raise TypeError(f"a {type(value).__name__} cannot be part of a cache key: text, numbers, bytes and tensors can")


class Cache:
    """Tensors on disk, by kind (`bases`, `inversion`, ...) and key (`content_key`); safe between processes.

    Never fails a run: an entry that cannot be read or kept is reported in `warnings` and in the log, once.

    Args:
        root: folder, default `cache_root()`; created at the first write.
        limit_bytes: size above which the least recently used entries go, default `cache_limit()`.
    """

    def __init__(self, root: str | Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = Path(root) if root is not None else cache_root()
        self.limit_bytes = cache_limit() if limit_bytes is None else limit_bytes
        self.warnings: list[str] = []
        self._total = RunningTotal(self.root)

    def get(self, kind: str, key: str) -> Content | None:
        """Return the (tensors on CPU, metadata) stored under `key`, or None when absent or damaged."""
        from safetensors import SafetensorError, safe_open

        path = self._path(kind, key)
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()[_HEADER])
                # cloned: the file's own pages would change with the file
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            intact = header["checksum"] == _checksum(key, header, tensors)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
            intact = False
        if not intact:
            self._warn(f"cache entry {kind}/{key[:12]} is damaged: it will be built again")
            return None
        with suppress(OSError):  # a cache shared read-only keeps its order
            os.utime(path)
        return tensors, header["metadata"]

    def put(self, kind: str, key: str, tensors: dict[str, "Tensor"], metadata: dict[str, Any]) -> bool:
        """Store the tensors and JSON metadata under `key`; return False (and warn) when they could not be kept."""
        content = _portable(tensors, metadata)
        lock = self._lock(kind, key)
        if lock is None:
            return False
        with lock:
            return self._write(kind, key, *content)

    def get_or_build(
        self, kind: str, key: str, build: Callable[[], Content]
    ) -> tuple[dict[str, "Tensor"], dict[str, Any], bool]:
        """Return (tensors on CPU, metadata, hit): stored ones, or those of `build()`, which are then stored.

        Of several processes that miss the same key one builds, the others wait for it. `build` must not ask for its
        own key.
        """
        found = self.get(kind, key)
        if found is not None:
            return *found, True
        lock = self._lock(kind, key)
        if lock is None:
            return *_portable(*build()), False
        with lock:
            found = self.get(kind, key)
            if found is not None:
                return *found, True
            content = _portable(*build())
            self._write(kind, key, *content)
        return *content, False

    def entries(self) -> list[Entry]:
        """Return all entries, most recently used last; reads headers only and needs no torch."""
        return [_entry(path, stat) for path, stat in self._files()]

    def clear(self, kind: str | None = None) -> tuple[int, int]:
        """Remove all entries, or those of one kind; return how many and their size in bytes."""
        count = size = 0
        for path, stat in self._files():
            if kind in (None, path.parent.parent.name) and _remove(path):
                count, size = count + 1, size + stat.st_size
        self._total.forget()
        return count, size

    def remove(self, kind: str, key: str) -> bool:
        """Remove one entry; return whether it was there."""
        self._total.forget()
        return _remove(self._path(kind, key))

    def _path(self, kind: str, key: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind) or not re.fullmatch(r"[0-9a-f]{8,}", key):
            raise ValueError(f"kind {kind!r} must be lower-case letters, digits, - or _, and key {key!r} hex digits")
        return self.root / kind / key[:2] / f"{key}.safetensors"

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning(text)

    def _lock(self, kind: str, key: str) -> AcquireReturnProxy | None:
        path = self._path(kind, key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                return lock.acquire(timeout=2)
            except Timeout:
                log.info("waiting for another process that builds %s/%s", kind, key[:12])
                return lock.acquire()
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            self._warn(f"cache folder {self.root} cannot be written ({reason}): going on without it")
            return None

    def _write(self, kind: str, key: str, tensors: dict[str, "Tensor"], metadata: dict[str, Any]) -> bool:
        from safetensors.torch import save

        path = self._path(kind, key)
        header = {"metadata": metadata, "created": time.time()}
        header["checksum"] = _checksum(key, header, tensors)
        payload = save(tensors, {_HEADER: json.dumps(header)})
        try:
            for stale in path.parent.glob(f".{key}-*.tmp"):  # its writer is dead: this process holds the lock
                stale.unlink(missing_ok=True)
            self._make_room(path, len(payload))
            with atomic_write(path, tag=key) as stream:
                stream.write(payload)
        except OSError as error:
            self._warn(f"cache entry {kind}/{key[:12]} was not kept: {error.strerror or error}")
            return False
        return True

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.root.glob("*/[0-9a-f][0-9a-f]/*.safetensors"):
            with suppress(OSError):  # another process removed it meanwhile
                found.append((path, path.stat()))
        return sorted(found, key=lambda item: (item[1].st_mtime_ns, item[0]))

    def _make_room(self, path: Path, size: int) -> None:
        """Evict what an entry of `size` bytes at `path` leaves no room for; as a rule that takes no look at any."""
        try:
            with self._total.held():
                total = self._total.add(size)
                if total is None or total > self.limit_bytes:
                    self._total.set(self._evict(path, size))
        except NotImplementedError:  # a folder without locks
            self._evict(path, size)

    def _evict(self, path: Path, size: int) -> int:
        """Remove the least recently used entries beyond the limit, some at once where there are many; what is left.

        Args:
            path, size: of the entry that is about to be written.
        """
        for temporary in self.root.glob("*/[0-9a-f][0-9a-f]/.*.tmp"):
            with suppress(OSError):
                if time.time() - temporary.stat().st_mtime > STALE_SECONDS:
                    temporary.unlink()
        files = [(other, stat) for other, stat in self._files() if other != path]
        total = size + sum(stat.st_size for _, stat in files)
        if total <= self.limit_bytes:
            return total
        for number, (other, stat) in enumerate(files):
            # a few more than needed, or a full cache would be counted again at the very next write
            if (total > self.limit_bytes or number < len(files) // 50) and _remove(other):
                total -= stat.st_size
        return total


def _portable(tensors: dict[str, "Tensor"], metadata: dict[str, Any]) -> Content:
    # a miss returns exactly what a later hit will: CPU, contiguous, own memory, metadata through JSON
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return copies, json.loads(json.dumps(metadata, allow_nan=False))


def _checksum(key: str, header: dict[str, Any], tensors: dict[str, "Tensor"]) -> str:
    return content_key(key=key, metadata=header["metadata"], created=header["created"], tensors=tensors)


def _entry(path: Path, stat: os.stat_result) -> Entry:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = json.loads(file.metadata()[_HEADER])
            created, metadata = float(header["created"]), dict(header["metadata"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        created, metadata = stat.st_mtime, {}
    return Entry(path.parent.parent.name, path.stem, stat.st_size, created, stat.st_mtime, metadata)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
        # a process that waits on this lock file may now build beside another: double work, same result
        path.with_suffix(".lock").unlink(missing_ok=True)
    except OSError:
        return False
    return True
