"""Bad days of a batch: memory, disks and links; and of any edit: threads."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_kit import files, lines
from PIL import Image

import freectl
from freectl.errors import FreectlError
from freectl.files.cache import Cache
from freectl.tasks import edit as editing
from freectl.tasks import memory


def starved(monkeypatch, most):
    """Let the network take so many pictures at once; the sizes that were tried."""
    tried, called = [], editing._called

    def call(pipe, plans, *args, **kwargs):
        tried.append(len(plans))
        if len(plans) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return called(pipe, plans, *args, **kwargs)

    monkeypatch.setattr(editing, "_called", call)
    return tried


def test_a_smaller_batch_is_tried_and_stays(batch, monkeypatch):
    tried = starved(monkeypatch, 2)
    rows = [{"image": "a.png", "seed": list(range(7))}]
    assert batch(rows).made == 7
    assert tried == [7, 3, *[1] * 7]


def test_the_message_has_the_sizes(batch, model, monkeypatch):
    starved(monkeypatch, 0)
    done = batch([{"image": "a.png"}])
    assert done.failed == 1
    with pytest.raises(
        memory.OutOfMemoryError, match=r"out of memory on cpu, where \d+ MiB are free: 1 picture of 32x32 px"
    ):
        freectl.edit("a.png", "a cat", "sdedit", model, steps=3)
    assert lines()[0]["error"].startswith("out of memory on cpu")


def test_how_many_fit():
    free = memory.free_memory_mb("cpu")
    assert free is not None
    assert memory.fitting("cpu", free * 10, 0.8, 8) == 1
    assert memory.fitting("cpu", free / 100, 0.8, 8) == 8
    assert memory.fitting("cpu", None, 0.8, 8) == 1
    with memory.Peak("cpu") as peak:
        held = np.ones(64 * 2**20, dtype=np.uint8)
    assert held.sum() == 64 * 2**20
    assert peak.mb is None or peak.mb >= 0


def test_a_full_disk_ends_the_batch_in_one_line_and_it_goes_on_later(batch, monkeypatch):
    rows = [{"image": f"{name}.png"} for name in "ab"]
    write = os.write

    def full(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(FreectlError, match="could not write 'out/results.jsonl': No space left on device"):
            batch(rows)
    assert os.write is write
    assert not [name for name in files() if name.startswith(".freectl")]
    assert batch(rows, resume=True).kept == 2


def test_links_out_of_the_folder_are_not_followed(batch):
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/sdedit").symlink_to("../elsewhere")
    done = batch([{"image": "a.png"}], name="{method}/{stem}.png")
    assert done.failed == 1
    assert "a link leads outside" in lines()[0]["error"]
    assert list(Path("elsewhere").iterdir()) == []
    Image.new("RGB", (3, 3)).save("mine.png")
    Path("other").mkdir()
    Path("other/a_0.png").symlink_to("../mine.png")
    assert batch([{"image": "a.png"}], "other").made == 1
    assert Image.open("mine.png").size == (3, 3)


def test_a_clock_that_was_moved_leaves_no_half_files(batch):
    batch([{"image": "a.png"}])
    for when in (0, 4_000_000_000):
        half = Path(f"out/.freectl-{'0' * 15}{when % 10}.tmp")
        half.write_bytes(b"half")
        os.utime(half, (when, when))
    os.utime("a.png", (4_000_000_000, 4_000_000_000))
    done = batch([{"image": "a.png"}], resume=True)
    assert (done.kept, done.made) == (0, 1)  # the input says that it has changed
    assert not [name for name in files() if name.startswith(".freectl")]


def test_two_batches_do_not_share_a_folder(batch):
    from freectl.files.journal import locked

    with locked(Path("out")), pytest.raises(FreectlError, match="another run is writing to 'out'"):
        batch([{"image": "a.png"}])


def test_four_threads_give_what_one_gives(model):
    def edit(seed):
        return np.asarray(freectl.edit("a.png", "a cat", "sdedit", model, steps=3, seed=seed).image)

    alone = [edit(seed) for seed in range(4)]
    found = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: edit(seed)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert np.array_equal(found[seed], alone[seed])


@pytest.mark.slow
def test_two_hundred_edits_do_not_grow(model, monkeypatch):
    monkeypatch.setenv("FREECTL_CACHE_LIMIT_GB", "0.001")
    if not Path("/proc/self/statm").exists():
        pytest.skip("no resident set to read")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1])

    sizes = []
    for seed in range(200):
        freectl.edit("a.png", "a cat", "pnp", model, steps=3, seed=seed, source_prompt=f"a dog {seed % 7}")
        sizes.append(resident())
        assert sum(entry.bytes for entry in Cache().entries()) <= 10**6
    print(f"pages after 10 and 200 edits: {sizes[9]}, {sizes[-1]}")  # noqa: T201 - told with -s
    assert sizes[-1] < 1.05 * sizes[9]
