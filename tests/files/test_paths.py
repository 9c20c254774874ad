"""Paths that no file system can hold are answered, not raised over."""

import ast
import os
from pathlib import Path

import pytest

from freectl.errors import InputError
from freectl.files.paths import at_home, check_file, is_file, is_folder, same, stamp, there

ROOT = Path(__file__).parents[2]
RAISING = {"exists", "is_file", "is_dir", "samefile"}
"""Methods of pathlib that raise for names too long and for folders that may not be entered."""
WINGS = ("files", "cli", "tasks", "preprocess")


def calls_of(names, folder):
    """Where methods of these names are called, but for the functions of os.path, which do not raise."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in names and ast.unparse(called.value) != "os.path":
                yield f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("wing", WINGS)
def test_what_people_give_is_not_asked_by_methods_that_raise(wing):
    assert list(calls_of(RAISING, ROOT / "freectl" / wing)) == []


def test_homes_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/a") == tmp_path / "a"
    for name in ("~0", "~nobody-of-that-name/a", "a~", "\0"):
        assert at_home(name) == Path(name)
    assert [*calls_of({"expanduser"}, ROOT / "freectl"), *calls_of({"expanduser"}, ROOT / "eval")] == []


@pytest.mark.parametrize("path", ["x" * 300, "nul\0", "x" * 5000])
def test_impossible_names(path):
    assert not is_file(path)
    assert not is_folder(path)
    assert not there(path)
    assert not same(path, path)
    with pytest.raises(InputError, match="^--mask: found"):
        check_file(path, "--mask", "a file")


def test_a_folder_that_may_not_be_entered(tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(InputError, match=r"--mask: found .*unreadable \(Permission denied\)"):
        check_file(tmp_path / "a", "--mask", "a file")


def test_a_stamp_changes_with_content_in_files_and_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "a"
    stamps = [stamp(tmp_path)]
    for text in ("one", "longer"):
        file.write_text(text)
        stamps.append(stamp(tmp_path))
    os.utime(file, ns=(5, 5))
    stamps.append(stamp(tmp_path))
    assert len(set(stamps)) == len(stamps) == 4
    assert stamp(file) == stamp(str(file)) == stamps[-1]
    assert stamp("") == ()
