"""Options and settings: closed, checked once, and with errors that name the option and what is allowed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freectl.errors import InputError
from freectl.methods import REGISTRY, get
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.tasks.edit import split_record
from freectl.tasks.options import EditOptions, check_concept, method_settings, parse_assignments, validated


def options(**values) -> EditOptions:
    return validated(EditOptions, {"prompt": "a cat"} | values)


def test_defaults_need_only_a_prompt():
    made = options()
    assert (made.method, made.model, made.preset, made.steps, made.seed) == ("freecontrol", "mini", "default", 50, 0)
    with pytest.raises(InputError, match="--prompt"):
        validated(EditOptions, {})


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"prompt": ""}, "--prompt.*empty"),
        ({"prompt": " \n"}, "--prompt.*empty"),
        ({"steps": 0}, "--steps.*1"),
        ({"steps": 1001}, "--steps.*1000"),
        ({"steps": "many"}, "--steps.*integer"),
        ({"steps": 2.5}, "--steps.*integer"),
        ({"seed": -1}, "--seed.*0"),
        ({"seed": 2**63}, "--seed"),
        ({"guidance_scale": -1}, "--guidance-scale.*0"),
        ({"guidance_scale": float("nan")}, "--guidance-scale"),
        ({"guidance_scale": float("inf")}, "--guidance-scale"),
        ({"dtype": "fp8"}, "--dtype.*fp32"),
        ({"offload": "disk"}, "--offload.*sequential"),
        ({"stesp": 3}, "--stesp.*'steps'"),
        ({"source-prompt": "x"}, "source_prompt"),
    ],
)
def test_bad_options_are_one_line_that_names_them(values, match):
    with pytest.raises(InputError, match=match) as error:
        options(**values)
    assert "\n" not in str(error.value)


def test_options_are_frozen_and_convert_texts():
    made = options(steps="20", guidance_scale="3.5")
    assert (made.steps, made.guidance_scale) == (20, 3.5)
    with pytest.raises(ValueError, match="frozen"):
        made.steps = 3  # type: ignore[misc]


def test_settings_merge_defaults_preset_and_overrides():
    method = FreeControl()
    assert method_settings(method, "default", {}) == FreeControlSettings()
    official = method_settings(method, "official", {})
    assert official == FreeControlSettings(**PRESETS["official"])
    mixed = method_settings(method, "official", {"structure_weight": "5", "window_stop": 0.3})
    assert (mixed.structure_weight, mixed.window_stop) == (5.0, 0.3)
    assert mixed.appearance_weight == official.appearance_weight
    assert mixed.warmup == FreeControlSettings().warmup


@pytest.mark.parametrize("name", REGISTRY)
def test_every_method_has_a_default_preset_and_valid_presets(name):
    method = get(name)
    assert method.name == name
    for preset in method.presets:
        method_settings(method, preset, {})
    assert "default" in method.presets
    fields = type(method_settings(method, "default", {})).model_fields
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("preset", "overrides", "match"),
    [
        ("oficial", {}, "--preset.*'official'"),
        ("default", {"structure_wieght": 1}, "--set structure_wieght.*'structure_weight'"),
        ("default", {"strength": 0.5}, "--set strength"),
        ("default", {"structure_weight": "heavy"}, "structure_weight.*number"),
        ("default", {"structure_weight": -1}, "structure_weight.*0"),
        ("default", {"window_stop": 1.5}, "window_stop.*1"),
        ("default", {"warmup": float("nan")}, "warmup"),
        ("default", {"normalize": "zscore"}, "normalize.*minmax"),
        ("default", {"seeds": 0}, "seeds.*1"),
    ],
)
def test_bad_settings_name_the_nearest_or_the_range(preset, overrides, match):
    with pytest.raises(InputError, match=match) as error:
        method_settings(FreeControl(), preset, overrides)
    assert "\n" not in str(error.value)


def test_unknown_method_suggests():
    with pytest.raises(InputError, match=r"--method.*freecontrol, .*did you mean 'freecontrol'"):
        get("freecontol")


def test_assignments():
    pairs = ["structure_weight=400", "window-stop = 0.5", "normalize=none", "odd=a=b"]
    expected = {"structure_weight": "400", "window_stop": "0.5", "normalize": "none", "odd": "a=b"}
    assert parse_assignments(pairs) == expected
    with pytest.raises(InputError, match=r"--set: found seeds twice \('1' and '2'\)"):
        parse_assignments(["seeds=1", "seeds=2"])


@pytest.mark.parametrize("text", ["structure_weight", "=3", " =3", ""])
def test_assignments_without_key_or_value(text):
    with pytest.raises(InputError, match="--set.*key=value"):
        parse_assignments([text])


@given(st.text(st.characters(exclude_characters="=")), st.text())
def test_assignments_split_at_the_first_equals_sign(key, value):
    if key.strip():
        assert parse_assignments([f"{key}={value}"]) == {key.strip().replace("-", "_"): value.strip()}
    else:
        with pytest.raises(InputError, match="--set"):
            parse_assignments([f"{key}={value}"])


@pytest.mark.parametrize(
    "concept", ["cat", "Cat", "red cat", "RED  CAT", "dog", "cat's"], ids=lambda text: text.replace(" ", "_")
)
def test_concepts_are_words_of_a_prompt(concept):
    check_concept(concept, "A red cat, the cat's toy", "a dog")


@pytest.mark.parametrize("concept", ["ca", "cats", "cat red", "bird", "", "!"])
def test_concepts_elsewhere_list_the_words(concept):
    with pytest.raises(InputError, match=r"--concept.*words of the prompt: a, red, cat, dog") as error:
        check_concept(concept, "a red cat", "a dog")
    assert repr(concept) in str(error.value)


def test_records_split_into_image_options_and_settings():
    record = {
        "output": "out.png",
        "method": "freecontrol",
        "prompt": "a cat",
        "steps": 7,
        "settings": {"image": "in.png", "source_prompt": "a dog", "preset": "official", "structure_weight": 3.0},
        "cost": {"row_forwards": 4},
        "warnings": ["x"],
    }
    chosen, settings = split_record(record)
    assert chosen == {
        "image": "in.png", "method": "freecontrol", "prompt": "a cat", "steps": 7, "source_prompt": "a dog",
        "preset": "official",
    }  # fmt: skip
    assert settings == {"structure_weight": 3.0}
    flat = split_record({"prompt": "a cat", "window_stop": 0.5, "image": "x.png"})
    assert flat == ({"prompt": "a cat", "image": "x.png"}, {"window_stop": 0.5})
    assert split_record({"prompt": "a cat", "model": None, "components": None}) == (
        {"prompt": "a cat"},
        {"components": None},
    )


def test_help_names_every_option():
    """Whatever may stand in a config file is also a flag."""
    from inspect import signature

    from freectl.cli.edit import edit

    flags = set(signature(edit).parameters)
    assert set(EditOptions.model_fields) <= flags
    assert re.search("image", " ".join(flags))
