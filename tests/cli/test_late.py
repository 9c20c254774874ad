import importlib
import sys

import pytest

from freectl.cli import late


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `outer` with a module `outer.slow`, which is read late."""
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "__init__.py").write_text("")
    slow = tmp_path / "outer" / "slow.py"
    slow.write_text(
        "import sys\nsys.read_slow = True\nvalue = 3\nfrom outer.part import twice\n"
        "def thrice(x):\n    return 3 * x\ndef marked(x):\n    return [x]\n"
    )
    (tmp_path / "outer" / "part.py").write_text("import outer.slow\ndef twice():\n    return 2 * outer.slow.value\n")
    monkeypatch.syspath_prepend(tmp_path)
    stand_ins = {"marked": late._as_it_is, "thrice": late._called_late("outer.slow", "thrice")}
    monkeypatch.setattr(late, "LATE", {"outer.slow": stand_ins})
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    late.read_late()
    late.read_late()
    yield slow
    for name in [name for name in sys.modules if name.partition(".")[0] == "outer"]:
        del sys.modules[name]
    vars(sys).pop("read_slow", None)


def test_import_statements_alone_read_nothing(package):
    import outer.slow  # noqa: F401
    import outer.slow as again

    assert not hasattr(sys, "read_slow")
    assert again.value == 3
    assert sys.read_slow
    assert again.twice() == 6
    assert importlib.reload(again).value == 3


def test_a_name_imported_from_it_is_a_use(package):
    from outer.slow import twice

    assert twice() == 6


def test_names_that_have_stand_ins_read_nothing_until_they_are_called(package):
    from outer.slow import marked, thrice

    assert marked(thrice) is thrice
    assert marked()(thrice) is thrice
    assert not hasattr(sys, "read_slow")
    assert thrice(2) == 6
    assert sys.read_slow

    import outer.slow

    assert outer.slow.marked(1) == [1]
    assert outer.slow.thrice is not thrice


def test_a_module_that_fails_fails_at_each_use(package):
    package.write_text("raise ValueError('broken')\n")
    from outer import slow

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            slow.value  # noqa: B018


def test_what_is_not_there_is_not_there(package):
    package.unlink()
    with pytest.raises(ModuleNotFoundError):
        import outer.slow  # noqa: F401
