import gc

import pytest

from freectl.files import collector


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No freezing of the objects of other tests; what would be called at exit is listed."""
    monkeypatch.setattr(collector, "_state", {"held": False, "frozen": False})
    calls = []
    monkeypatch.setattr(collector.gc, "freeze", lambda: calls.append("frozen"))
    monkeypatch.setattr(collector.atexit, "register", lambda call: calls.append("at exit"))
    return calls


def test_collection_is_off_until_everything_is_loaded(fresh):
    with collector.held():
        assert not gc.isenabled()
        collector.settle()
        assert gc.isenabled()
    assert gc.isenabled()
    assert fresh == ["frozen", "at exit"]


def test_a_process_freezes_once_whatever_it_loads(fresh):
    for _ in range(2):
        with collector.held():
            collector.settle()
    assert fresh == ["frozen", "at exit"]


def test_nothing_of_a_caller_is_frozen(fresh):
    collector.settle()
    assert fresh == []


def test_collection_is_back_after_a_failure():
    for off in (collector.held, collector.paused):
        with pytest.raises(KeyError), off():
            raise KeyError
        assert gc.isenabled()


def test_a_caller_that_collects_nothing_is_left_alone(fresh):
    gc.disable()
    try:
        for off in (collector.held, collector.paused):
            with off():
                collector.settle()
            assert not gc.isenabled()
    finally:
        gc.enable()
    assert fresh == []
