"""Configurations of other people: one line for what cannot be read, in bounded time and memory."""

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from freectl.errors import InputError
from freectl.files.parsing import MAX_DEPTH, MAX_YAML, parse_json, parse_yaml
from freectl.files.record import read_config, split

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BOMB, "aliases"),
        ("settings: null", "settings None"),
        ("settings: 5", "settings 5"),
        ("settings: [1]", "settings [1]"),
        ("prompt: !!python/object/apply:os.system ['true']", "invalid YAML"),
        ("prompt: !!binary aGVsbG8=", "bytes"),
        ("prompt: !!timestamp 2001-12-14", "date"),
        ("prompt: !!set {a, b}", "set"),
        ("seed: " + "9" * 5000, "invalid YAML"),
        ("seed: " + "9" * 30, "beyond"),
        ("seed: 1.5e300", "beyond"),
        ("seed: 1\nseed: 2", "'seed' is given twice"),
        ("settings: {a: 1, a: 2}", "'a' is given twice"),
        ("? [a, b]\n: 1", "invalid YAML"),
        ("1: 2", "the key 1"),
        ("[" * 500, "invalid YAML"),
        ("x: " + "[" * 50 + "]" * 50, "deeper"),
        ("- 1", "list"),
        ("", "NoneType"),
        ("a: " + "x" * MAX_YAML, "more than"),
    ],
)
def test_yaml_that_is_refused_is_one_line_at_once(tmp_path, text, found):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert time.perf_counter() - began < 5
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_values_that_yaml_1_1_would_change_stay_what_is_written(tmp_path):
    text = "a: 2001-12-14\nb: 1:30\nc: 010\nd: on\ne: 1e-3\nf: 12\ng: .5\nh: true\ni: ~\nj: '7'\nk: -2.5\n"
    value = parse_yaml(text, tmp_path, "--config")
    expected = {"a": "2001-12-14", "b": "1:30", "c": "010", "d": "on", "e": 0.001, "f": 12, "g": 0.5, "h": True}
    assert value == expected | {"i": None, "j": "7", "k": -2.5}


def text(length: int) -> st.SearchStrategy[str]:
    """Texts that are no numbers: PyYAML writes 0E0 without quotes, which YAML 1.2 reads as one."""

    def no_number(one: str) -> bool:
        try:
            float(one)
        except ValueError:
            return True
        return False

    return st.text(max_size=length).filter(no_number)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | text(20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text(8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text(8).filter(lambda key: key != "settings"), PLAIN, max_size=4))
def test_what_dumps_is_read_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "x"
    assert parse_json(json.dumps(value), path, "--config") == value
    assert parse_yaml(yaml.safe_dump(value), path, "--config") == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "beyond"),
        ('{"a": ' + "9" * 5000 + "}", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ('{"a": ' + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2) + "}", "deeper"),
        ('{"settings": null}', "settings None"),
    ],
)
def test_json_that_is_refused(tmp_path, text, found):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_is_a_regular_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "c.yaml")
    for path, found in ((tmp_path / "c.yaml", "named pipe"), (tmp_path / ("x" * 300 + ".json"), "too long")):
        with pytest.raises(InputError, match=found):
            read_config(path)


def test_settings_are_taken_from_a_mapping_alone():
    assert split({"seed": 3, "settings": {"steps": 4, "strength": 1}}, "edit", ["seed", "steps"]) == (
        {"seed": 3, "steps": 4},
        {"strength": 1},
    )
