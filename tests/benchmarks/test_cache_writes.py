"""What a write to a full house costs: milliseconds at 10 and at 5,000 entries, beside a file written and synced alone.

pytest tests/benchmarks/test_cache_writes.py -m benchmark -s -n 0
"""

import os
import statistics
import time
from pathlib import Path

import pytest
import torch

from freectl.files.cache import Cache, content_key

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(0)]

MOST = 8.0
"""Milliseconds of CPU that a write may take with 5,000 entries."""


def fill(cache: Cache, first: int, last: int) -> None:
    """Entries as another run has left them, without locks and syncing."""
    cache.put("inversion", content_key(i=first), {"x": torch.ones(16)}, {})
    body = next(cache.root.rglob("*.safetensors")).read_bytes()
    for i in range(first + 1, last):
        key = content_key(i=i)
        folder = cache.root / "inversion" / key[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.safetensors").write_bytes(body)


def written(cache: Cache, tag: str) -> tuple[float, float]:
    """CPU and wall milliseconds of a write, medians of 30."""
    spent = []
    for i in range(30):
        cpu, wall = time.process_time(), time.perf_counter()
        cache.put("inversion", content_key(tag=tag, i=i), {"x": torch.ones(16)}, {})
        spent.append((time.process_time() - cpu, time.perf_counter() - wall))
    return 1000 * statistics.median(one for one, _ in spent), 1000 * statistics.median(one for _, one in spent)


def synced(path: Path) -> float:
    """Wall milliseconds of the least that a durable write takes here, median of 30."""
    spent = []
    for _ in range(30):
        start = time.perf_counter()
        with open(path, "wb") as stream:
            stream.write(b"x" * 500)
            stream.flush()
            os.fsync(stream.fileno())
        spent.append(time.perf_counter() - start)
    return 1000 * statistics.median(spent)


def test_a_write_takes_as_long_in_a_large_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cache = Cache(tmp_path, 10**9)
    fill(cache, 0, 10)
    few = written(cache, "few")
    fill(cache, 10, 5000)
    (cache.root / ".total").unlink()  # its first write counts
    cache.put("inversion", content_key(i="first"), {"x": torch.ones(16)}, {})
    many = written(cache, "many")
    with capsys.disabled():
        print(  # noqa: T201
            f"\na write: {few[0]:.2f} ms of CPU, {few[1]:.2f} in all at 10 entries; {many[0]:.2f} and {many[1]:.2f} at "
            f"5,000; a file written and synced alone {synced(tmp_path / 'alone'):.2f}"
        )
    assert many[0] <= MOST
