"""What freectl/README.md says in tables is what the code does."""

import re
from pathlib import Path
from typing import Any

import pytest

import freectl
from freectl import methods
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.models.families import MINI, SD, SDXL
from freectl.preprocess import KINDS

PAGE = (Path(freectl.__file__).parent / "README.md").read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """Cells of the table whose header starts with `first`."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    body = lines[start + 2 :]
    end = next((i for i, line in enumerate(body) if not line.startswith("|")), len(body))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body[:end]]


def same(told: str, value: Any) -> bool:
    return told == ("none" if value is None else value if isinstance(value, str) else f"{value:g}")


def test_presets_are_told_as_they_are():
    told = {cells[0].strip("`"): cells[1:] for cells in rows("setting")}
    for number, preset in enumerate(("default", "official", "paper")):
        settings = FreeControl().resolved(FreeControlSettings(**PRESETS[preset]), SD)
        for name, values in told.items():
            assert same(values[number], getattr(settings, name)), (preset, name)
    for preset in PRESETS.values():
        assert set(preset) <= set(told)


def test_presets_of_other_methods_are_told_as_they_are():
    told = {
        tuple(re.findall(r"`([^`]+)`", name)): set(re.findall(r"`([^`]+)`", sets))
        for name, sets, _ in rows("method and preset")
    }
    made = {
        (method.name, preset): {f"{key}={value}" for key, value in values.items()}
        for method in methods.available()
        if method.name != "freecontrol"
        for preset, values in method.presets.items()
        if values
    }
    assert told == made


@pytest.mark.parametrize(("row", "family"), enumerate((SD, SDXL, MINI)))
def test_families_are_told_as_they_are(row, family):
    cells = rows("family")[row]
    assert cells[1] == f"`{family.structure_block}`"
    assert cells[4:6] == [family.freecontrol["features"], family.freecontrol["layers"]]
    scale = FreeControl().guidance_scale(FreeControlSettings(), family)
    assert [float(cell) for cell in cells[6:]] == [family.freecontrol["appearance_weight"], scale]


def test_preprocessors_are_told_as_they_are():
    told = [re.findall(r"`([^`]+)`", cells[0])[0] for cells in rows("name")]
    assert told == [kind.form for kind in KINDS.values()]
