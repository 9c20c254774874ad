"""What every registered method has: a documented page, settings that are read, and a cost formula that adds up."""

import inspect
import re
from pathlib import Path

import pytest

from freectl import methods
from freectl.cost import rows_in
from freectl.methods.setting import described

PACKAGE = Path(methods.__file__).parent


def sources_of(name: str) -> str:
    """The code of a method: its module, and those beside it that share its first word."""
    module = Path(inspect.getfile(type(methods.get(name)))).stem
    return "\n".join(path.read_text() for path in sorted(PACKAGE.glob(f"{module.split('_')[0]}*.py")))


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_a_method_is_documented(name):
    method = methods.get(name)
    assert method.name == name
    assert "=" in method.equations, "a method says what it computes"
    assert re.search(r"\b(19|20)\d\d\b", method.paper), "a paper has a year"
    assert all(len(line) <= 120 for line in method.equations.splitlines())
    method.settings(**{})
    for preset in method.presets.values():
        method.settings(**preset)


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_every_setting_says_what_it_means_and_is_read(name):
    method, code = methods.get(name), sources_of(name)
    for one in described(method.settings()):
        assert one["description"], one["name"]
        assert one["range"], one["name"]
        read = re.search(rf"(settings|config)\.{one['name']}\b", code)
        assert read, f"{one['name']} is declared and never read"


def test_formulas_are_read_as_they_are_written():
    assert rows_in("inversion 50 + synthesis 192 (146 without a source prompt)") == 242
    assert rows_in("inversion 50 + reference 30 x executed share + synthesis 160 (+ 28 row backwards)", 0.5) == 225
    for wrong in ("about fifty", "synthesis", "50"):
        with pytest.raises(ValueError, match="cost formula"):
            rows_in(wrong)
