"""Which formats may be read at all: a picture from a stranger starts no program."""

import ast
import io
import shutil
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from freectl.errors import InputError
from freectl.files.pictures import FORMATS, load_image
from gan_baselines.data import pictures as gan_pictures

ROOT = Path(__file__).parents[2]
PACKAGES = ("freectl", "gan_baselines", "eval")
DRAWS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n1 0 0 setrgbcolor 8 8 48 48 rectfill\nshowpage\n%%EOF\n"


def opens(path):
    """Calls of `Image.open` in a source file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "open" and ast.unparse(called.value).endswith("Image"):
            yield node


def allowed(call):
    """Whether a call names the one list, or formats of it."""
    given = [ast.unparse(one.value) for one in call.keywords if one.arg == "formats"]
    if not given:
        return False
    return given[0].split(".")[-1] == "FORMATS" or set(ast.literal_eval(given[0])) <= set(FORMATS)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_open_names_the_formats_it_takes(package):
    calls = [(path, call) for path in sorted((ROOT / package).rglob("*.py")) for call in opens(path)]
    assert calls
    assert [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls if not allowed(call)] == []


def test_formats_that_start_programs_or_need_other_packages_are_not_among_them():
    assert {"PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "PSD"} <= set(FORMATS)
    assert not {"EPS", "WMF", "GRIB", "BUFR", "HDF5", "MPEG", "FITS"} & set(FORMATS)


def test_the_lists_of_other_packages_hold_no_other_formats():
    assert set(gan_pictures.FORMATS) <= set(FORMATS)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program in Ghostscript's place; the file that it leaves says that it ran."""
    ran = tmp_path / "ran"
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    assert shutil.which("gs") == str(program)
    with pytest.raises(OSError, match=r".*"):  # Pillow itself would run it: the test would see it
        Image.open(io.BytesIO(DRAWS)).load()
    assert ran.exists()
    ran.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return ran


def test_postscript_named_png_is_refused_and_runs_nothing(tmp_path, ghostscript):
    path = tmp_path / "shot.png"
    path.write_bytes(DRAWS)
    with pytest.raises(InputError, match="a PostScript file"):
        load_image(path)
    with Image.open(path) as opened, pytest.raises(InputError, match="of the format EPS"):
        load_image(opened)
    assert not ghostscript.exists()
