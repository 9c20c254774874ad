import errno
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from forks import Fork
from hypothesis import given, settings
from hypothesis import strategies as st

from freectl.files.cache import STALE_SECONDS, Cache, content_key

KEY = content_key(name="key")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", limit_bytes=10**9)


def content(value=1.0, size=4):
    return {"x": torch.full((size,), value)}, {"note": "n"}


def build_never():
    raise AssertionError("built again")


def path_of(cache, key=KEY, kind="bases"):
    return cache.root / kind / key[:2] / f"{key}.safetensors"


def test_hit_equals_miss_for_every_dtype_layout_and_metadata(cache):
    whole = torch.arange(24.0).reshape(4, 6)
    built = {
        "half": whole.half(),
        "bf16": whole.bfloat16(),
        "double": whole.double() / 3,
        "integers": torch.tensor(7),
        "mask": whole > 3,
        "strided": whole.T,
        "empty": torch.zeros(0, 5),
        "row": whole[1].requires_grad_(),
        "same": whole[1],
    }
    described = {"steps": (1, 2), "weight": 0.1, 3: None, "text": "狐"}
    first, first_metadata, first_hit = cache.get_or_build("bases", KEY, lambda: (built, described))
    second, second_metadata, second_hit = cache.get_or_build("bases", KEY, build_never)
    assert (first_hit, second_hit) == (False, True)
    assert first_metadata == second_metadata == {"steps": [1, 2], "weight": 0.1, "3": None, "text": "狐"}
    assert first.keys() == second.keys() == built.keys()
    for name, tensor in built.items():
        assert first[name].dtype == second[name].dtype == tensor.dtype
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], tensor)
        assert first[name].stride() == second[name].stride()
        assert not first[name].requires_grad


def test_metadata_alone_can_be_cached(cache):
    assert cache.put("notes", KEY, {}, {"a": 1})
    assert cache.get("notes", KEY) == ({}, {"a": 1})


def test_what_a_caller_changes_stays_out_of_the_cache(cache):
    tensors, _ = content()
    cache.put("bases", KEY, tensors, {})
    tensors["x"].zero_()
    cache.get("bases", KEY)[0]["x"].zero_()
    assert cache.get("bases", KEY)[0]["x"].tolist() == [1.0] * 4


def test_absent_entries_kinds_and_illegal_names(cache):
    assert cache.get("bases", KEY) is None
    assert cache.warnings == []
    cache.put("bases", KEY, *content())
    assert cache.get("inversion", KEY) is None
    for kind, key in (("../up", KEY), ("bases", "../../etc"), ("", KEY), ("Bases", KEY)):
        with pytest.raises(ValueError, match="hex digits"):
            cache.get(kind, key)


def test_failed_build_is_not_cached_and_frees_the_lock(cache):
    with pytest.raises(AssertionError):
        cache.get_or_build("bases", KEY, build_never)
    assert cache.get_or_build("bases", KEY, content)[2] is False
    assert cache.get_or_build("bases", KEY, build_never)[2] is True


def test_two_processes_on_one_key_build_once(tmp_path):
    def build():
        with open(tmp_path / "log", "a") as file:
            file.write("built ")
        time.sleep(0.5)
        return {"x": torch.ones(3)}, {}

    def ask():
        tensors, _, hit = Cache(tmp_path / "cache").get_or_build("bases", KEY, build)
        sys.stdout.write(f"{int(hit)} {tensors['x'].sum().item()}")

    rivals = [Fork(ask), Fork(ask)]
    assert [rival.wait() for rival in rivals] == [0, 0]
    assert sorted(rival.stdout.read() for rival in rivals) == ["0 3.0", "1 3.0"]
    assert (tmp_path / "log").read_text() == "built "


def test_kill_while_building_hands_the_work_to_the_one_who_waits(cache):
    def build():
        sys.stdout.write("building\n")
        time.sleep(60)

    builder = Fork(lambda: Cache(cache.root).get_or_build("bases", KEY, build))
    assert builder.stdout.readline() == "building\n"
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(cache.get_or_build("bases", KEY, content)[2]))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()  # the lock is held
    builder.kill()
    waiting.join(10)
    assert found == [False]
    assert cache.get_or_build("bases", KEY, build_never)[2] is True
    assert cache.warnings == []


def test_kill_between_write_and_rename_leaves_nothing_broken(cache):
    def die():
        os.replace = lambda *_names: os.kill(os.getpid(), signal.SIGKILL)
        Cache(cache.root).put("bases", KEY, {"x": torch.ones(1000)}, {})

    assert Fork(die).wait() == -signal.SIGKILL
    left = list(path_of(cache).parent.glob(".*.tmp"))
    assert len(left) == 1
    assert cache.entries() == []
    assert cache.get("bases", KEY) is None
    assert cache.get_or_build("bases", KEY, content)[2] is False
    assert not left[0].exists()
    assert cache.get_or_build("bases", KEY, build_never)[2] is True
    assert cache.warnings == []


def test_old_temporary_files_of_other_keys_are_swept_and_fresh_ones_kept(cache):
    cache.put("bases", KEY, *content())
    old, fresh = path_of(cache).parent / ".aa-1.tmp", path_of(cache).parent / ".bb-2.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - STALE_SECONDS - 9,) * 2)
    age_total(cache, STALE_SECONDS + 9)
    cache.put("inversion", KEY, *content())
    assert (old.exists(), fresh.exists()) == (False, True)


def test_any_flipped_byte_and_any_truncation_is_detected(cache):
    cache.put("bases", KEY, *content())
    path = path_of(cache)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found = cache.get("bases", KEY)
        # blanks that pad the header may change without changing the content
        assert found is None or (found[0]["x"].tolist() == [1.0] * 4 and found[1] == {"note": "n"}), position
    for length in (0, 4, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert cache.get("bases", KEY) is None


def test_damaged_entry_is_reported_once_and_rebuilt(cache, caplog):
    cache.put("bases", KEY, *content())
    data = bytearray(path_of(cache).read_bytes())
    data[-1] ^= 255
    path_of(cache).write_bytes(data)
    with caplog.at_level(logging.WARNING):
        tensors, _, hit = cache.get_or_build("bases", KEY, lambda: content(2.0))
    assert not hit
    assert tensors["x"][0] == 2
    assert len(cache.warnings) == len(caplog.records) == 1
    assert "damaged" in cache.warnings[0]
    assert cache.get_or_build("bases", KEY, build_never)[2] is True


def test_entry_renamed_to_another_key_is_not_believed(cache):
    cache.put("bases", KEY, *content())
    other = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
    path_of(cache).rename(path_of(cache, other))
    assert cache.get("bases", other) is None


def test_least_recently_used_goes_first_and_the_new_entry_stays(cache):
    keys = [content_key(i=i) for i in range(4)]
    for i, key in enumerate(keys[:3]):
        cache.put("bases", key, *content(size=1000))
        os.utime(path_of(cache, key), (1000 + i,) * 2)
    cache.get("bases", keys[0])  # used last, though written first
    size = path_of(cache, keys[0]).stat().st_size
    cache.limit_bytes = 3 * size + 10
    cache.put("bases", keys[3], *content(size=1000))
    assert [cache.get("bases", key) is not None for key in keys] == [True, False, True, True]
    cache.limit_bytes = 0
    cache.put("bases", keys[1], *content(size=1000))
    assert [entry.key for entry in cache.entries()] == [keys[1]]


def age_total(cache, seconds):
    """Make the running total as old as that."""
    path = cache.root / ".total"
    count, counted = path.read_text().split()
    path.write_text(f"{count} {float(counted) - seconds}")


def bytes_in(cache):
    return sum(path.stat().st_size for path in cache.root.rglob("*.safetensors"))


def test_the_running_total_is_what_lies_there_and_spares_the_count(cache, monkeypatch):
    for i in range(5):
        cache.put("bases", content_key(i=i), *content(size=100 * i))
    assert int((cache.root / ".total").read_text().split()[0]) == bytes_in(cache)
    monkeypatch.setattr(Cache, "_files", lambda _: pytest.fail("every entry was looked at"))
    cache.put("inversion", KEY, *content())
    assert int((cache.root / ".total").read_text().split()[0]) == bytes_in(cache)


@pytest.mark.parametrize("harm", ["damaged", "old", "cleared", "of another process"])
def test_the_limit_holds_whatever_becomes_of_the_total(cache, harm):
    keys = [content_key(i=i) for i in range(6)]
    for i, key in enumerate(keys[:3]):
        cache.put("bases", key, *content(size=1000))
        os.utime(path_of(cache, key), (1000 + i,) * 2)
    size = path_of(cache, keys[0]).stat().st_size
    if harm == "damaged":
        (cache.root / ".total").write_text("many")
    elif harm == "old":  # and files came and went in the meantime
        (cache.root / ".total").write_text("0 0")
    elif harm == "cleared":
        cache.remove("bases", keys[0])
    else:
        Cache(cache.root, cache.limit_bytes).put("bases", keys[5], *content(size=1000))
    cache.limit_bytes = 2 * size + 10
    cache.put("bases", keys[3], *content(size=1000))
    assert bytes_in(cache) <= cache.limit_bytes
    assert cache.get("bases", keys[3]) is not None


def test_a_full_cache_is_not_counted_at_every_write(cache, monkeypatch):
    counts = []
    files = Cache._files
    monkeypatch.setattr(Cache, "_files", lambda self: counts.append(1) or files(self))
    keys = [content_key(i=i) for i in range(110)]
    cache.put("bases", keys[0], *content())
    cache.limit_bytes = 100 * path_of(cache, keys[0]).stat().st_size + 100
    for key in keys[1:]:
        cache.put("bases", key, *content())
    assert len(counts) < 1 + 10
    assert bytes_in(cache) <= cache.limit_bytes


def test_the_limit_holds_at_every_write_of_a_long_process(cache):
    """Two caches of one folder, entries of all sizes, read and removed in between; what lies there after each."""
    rng, other = random.Random(0), Cache(cache.root, 60_000)
    cache.limit_bytes = 60_000
    most = 0
    for i in range(80):
        writer = cache if rng.random() < 0.7 else other
        key = content_key(i=rng.randrange(60))  # some are written again, larger or smaller
        writer.put(rng.choice(["bases", "inversion"]), key, *content(size=rng.randrange(1, 5_000)))
        assert cache.get("bases", key) or cache.get("inversion", key)
        if i % 15 == 0:
            other.remove("bases", content_key(i=rng.randrange(60)))
        most = max(most, bytes_in(cache))
        assert most <= cache.limit_bytes
    assert most > 0.8 * cache.limit_bytes


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another file system than the others."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system alone")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize("what", ["all of it", "a kind"])
def test_a_cache_on_another_file_system(tmp_path, elsewhere, what):
    (tmp_path / "here").touch()
    with pytest.raises(OSError, match="cross-device"):
        os.rename(tmp_path / "here", elsewhere / "there")
    root = tmp_path / "cache"
    if what == "a kind":
        root.mkdir()
    (root if what == "all of it" else root / "bases").symlink_to(elsewhere)
    cache = Cache(root, 10**9)
    keys = [content_key(i=i) for i in range(3)]
    for i, key in enumerate(keys):
        assert cache.put("bases", key, *content(float(i), 1000))
        assert cache.put("inversion", key, *content(float(i), 1000))
        os.utime(path_of(cache, key), (1000 + i,) * 2)
    assert list(elsewhere.rglob("*.safetensors"))
    assert [int(cache.get("bases", key)[0]["x"][0]) for key in keys] == [0, 1, 2]
    assert not list(root.rglob("*.tmp")) + list(elsewhere.rglob("*.tmp"))
    cache.limit_bytes = 3 * path_of(cache, keys[0]).stat().st_size + 100
    assert cache.put("bases", KEY, *content(size=1000))
    assert sum(entry.bytes for entry in cache.entries()) <= cache.limit_bytes
    assert cache.get("bases", KEY) is not None
    assert cache.warnings == []


def test_limit_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path))
    monkeypatch.setenv("FREECTL_CACHE_LIMIT_GB", "0.001")
    cache = Cache()
    assert (cache.root, cache.limit_bytes) == (tmp_path, 10**6)


def test_unwritable_folder_warns_once_and_work_goes_on(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache")
    for _ in range(2):
        tensors, metadata, hit = cache.get_or_build("bases", KEY, content)
        assert (tensors["x"].tolist(), metadata, hit) == ([1.0] * 4, {"note": "n"}, False)
    assert not cache.put("inversion", KEY, *content())
    assert len(cache.warnings) == 1
    assert "cannot be written" in cache.warnings[0]
    assert cache.entries() == []
    assert cache.clear() == (0, 0)


def test_full_disk_warns_cleans_up_and_returns_the_work(cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cache.get_or_build("bases", KEY, content)[0]["x"].tolist() == [1.0] * 4
    assert "No space left on device" in cache.warnings[0]
    assert not [path for path in cache.root.rglob("*") if path.suffix in (".tmp", ".safetensors")]
    assert cache.get_or_build("bases", KEY, content)[2] is False
    assert cache.get_or_build("bases", KEY, build_never)[2] is True


def test_entries_and_clear_count_by_kind_and_spare_foreign_files(cache):
    before = time.time()
    for kind in ("bases", "inversion"):
        cache.put(kind, KEY, *content())
    foreign = cache.root / "mine.txt"
    foreign.write_text("keep")
    entries = cache.entries()
    assert [entry.kind for entry in entries] == ["bases", "inversion"]
    assert all(entry.key == KEY and entry.metadata == {"note": "n"} for entry in entries)
    assert all(before - 1 <= entry.created <= entry.last_used + 1 for entry in entries)
    assert cache.clear("bases") == (1, entries[0].bytes)
    assert cache.clear("nothing") == (0, 0)
    assert cache.clear() == (1, entries[1].bytes)
    assert [path for path in cache.root.rglob("*") if path.is_file()] == [foreign]


def test_listing_copes_with_a_damaged_entry(cache):
    cache.put("bases", KEY, *content())
    path_of(cache).write_bytes(b"junk")
    assert [(entry.bytes, entry.metadata) for entry in cache.entries()] == [(4, {})]
    assert cache.clear() == (1, 4)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def same(a, b):
    """Equality that tells True, 1, 1.0, 0.0 and -0.0 apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return repr(a) == repr(b)


@given(plain, plain)
@settings(max_examples=100, deadline=None)
def test_key_is_equal_exactly_when_the_ingredient_is(a, b):
    assert (content_key(value=a) == content_key(value=b)) == same(a, b)
    assert content_key(value=a) != content_key(other=a)


@given(st.dictionaries(st.text(max_size=3), plain, min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_key_does_not_depend_on_the_order_of_keys(ingredients):
    assert content_key(d=ingredients) == content_key(d=dict(reversed(ingredients.items())))


def test_key_depends_on_every_property_of_a_tensor(monkeypatch):
    base = torch.zeros(2, 3)
    changed = base.clone()
    changed[1, 2] = 1e-30
    variants = [base, changed, base.reshape(3, 2), base.int(), base.half(), base.bfloat16(), torch.tensor(0.0)]
    keys = {content_key(tensor=tensor) for tensor in variants}
    assert len(keys) == len(variants)
    assert content_key(tensor=base) == content_key(tensor=torch.zeros(3, 2).T)
    assert content_key(value=["bytes", "00"]) != content_key(value=("bytes", b"00"))
    assert content_key(value=(1, 2)) == content_key(value=[1, 2])
    with pytest.raises(TypeError, match="a object cannot be part of a cache key"):
        content_key(value=object())
    monkeypatch.setattr("freectl.files.cache.FORMAT_VERSION", 2)
    assert content_key(tensor=base) not in keys


def test_modules_import_without_torch():
    names = "pictures, record, outputs, cache, environment"
    code = f"import sys; from freectl.files import {names}; cache.content_key(a=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_headers_nested_too_deep_are_damage(cache):
    from safetensors.torch import save_file

    cache.put("bases", KEY, *content())
    save_file({"x": torch.zeros(2)}, path_of(cache), {"freectl": "[" * 100_000})
    assert cache.get("bases", KEY) is None
    assert [entry.metadata for entry in cache.entries()] == [{}]
