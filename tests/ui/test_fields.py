"""Forms against the settings classes they come from."""

import pytest
from pydantic import BaseModel, ValidationError

from freectl import methods
from freectl.methods.setting import described
from freectl.tasks.options import method_settings
from freectl.ui.fields import changed, fields

ALL = [method for method in methods.available() if method.name not in methods.OUTSIDE]
FIELDS = [(method, field) for method in ALL for field in fields(method.settings)]


def accepts(settings: type[BaseModel], name: str, value: object) -> bool:
    try:
        settings(**{name: value})
    except ValidationError as error:
        return all(one["loc"] != (name,) for one in error.errors())
    return True


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_a_form_has_every_setting_with_the_command_lines_words(method: object) -> None:
    told = described(method.settings())
    found = fields(method.settings)
    assert [field.name for field in found] == [one["name"] for one in told]
    assert [field.default for field in found] == [one["default"] for one in told]
    assert all(field.help.startswith(one["description"]) for field, one in zip(found, told, strict=True))


@pytest.mark.parametrize(("method", "field"), FIELDS, ids=lambda one: getattr(one, "name", None))
def test_ranges_and_choices_are_what_the_settings_class_takes(method: object, field: object) -> None:
    settings = method.settings
    assert accepts(settings, field.name, None) == field.optional
    for choice in field.choices:
        assert accepts(settings, field.name, choice)
    if field.kind == "choice":
        assert not accepts(settings, field.name, "another word")
    if field.low is not None:
        assert not accepts(settings, field.name, field.low - 1)
    if field.high is not None:
        assert accepts(settings, field.name, int(field.high) if field.kind == "whole" else field.high)
        assert not accepts(settings, field.name, field.high + 1)


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_an_untouched_form_changes_nothing_and_a_touched_one_that_alone(method: object) -> None:
    for preset in method.presets:
        wanted = method_settings(method, preset, {}).model_dump()
        shown = {field.name: field.given(wanted[field.name]) for field in fields(method.settings)}
        assert changed(method, preset, shown) == {}
    number = next(field for field in fields(method.settings) if field.kind == "number" and (field.high or 0) >= 1)
    touched = shown | {number.name: 0.625 if shown[number.name] != 0.625 else 0.5}
    given = changed(method, preset, touched)
    assert list(given) == [number.name]
    assert (
        method_settings(method, preset, given).model_dump() == method_settings(method, preset, {}).model_dump() | given
    )


def test_an_empty_number_is_none_where_that_is_allowed() -> None:
    by_name = {field.name: field for field in fields(methods.get("freecontrol").settings)}
    assert by_name["appearance_weight"].given(None) is None
    assert by_name["warmup"].given(None) == by_name["warmup"].default
    assert by_name["bases"].given("") is None
    assert by_name["normalize"].given("none") == "none"
    assert by_name["appearance_weight"].given("0") == 0
    assert by_name["appearance_weight"].given("40.5") == 40.5
    assert by_name["appearance_weight"].given("many") == "many"
    assert by_name["seeds"].given(3.0) == 3
    assert isinstance(by_name["seeds"].given(3.0), int)
