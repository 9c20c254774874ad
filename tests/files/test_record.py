import json
import math

import pytest
from PIL import Image

from freectl.errors import InputError
from freectl.files.record import atomic_write, dumps, read_config, read_record, sidecar
from freectl.files.record import save_image as save

RECORD = {
    "method": "freecontrol",
    "prompt": 'ein "Fuchs", 狐 🦊\n',
    "seed": 7,
    "steps": 50,
    "settings": {"b": 0.1, "a": None},
}


def picture():
    return Image.new("RGB", (4, 3), "red")


@pytest.mark.parametrize("name", ["out.png", "OUT.PNG", "out.jpg", "out.webp"])
def test_record_comes_back_from_every_output_format(tmp_path, name):
    path = save(picture(), tmp_path / name, RECORD)
    assert read_record(path) == RECORD
    assert read_config(path) == RECORD
    assert sidecar(path).exists() == (path.suffix.lower() != ".png")


def test_record_text_does_not_depend_on_key_order():
    assert dumps(RECORD) == dumps(dict(reversed(RECORD.items())))
    assert json.loads(dumps(RECORD)) == RECORD
    assert "\n" not in dumps(RECORD)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_refused_and_nothing_is_written(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        save(picture(), tmp_path / "out.png", {"seed": number})
    assert list(tmp_path.iterdir()) == []


def test_picture_without_a_record_names_the_file(tmp_path):
    for name in ("plain.png", "plain.jpg"):
        save(picture(), tmp_path / name)
        with pytest.raises(InputError, match=rf"--config: found '.*{name}'"):
            read_config(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", b'{"seed": ', "invalid JSON"),
        ("a.json", b'{"seed": NaN}', "NaN is not JSON"),
        ("a.json", b"[1, 2]", "holding list"),
        ("a.json", b"\xff\xfe{}", "not UTF-8"),
        ("a.json", b"[" * 200_000, "invalid JSON"),
        ("a.yaml", b"seed: [1", "invalid YAML"),
        ("a.yaml", b"", "holding NoneType"),
        ("a.yaml", b"1: 2", "the key 1"),
        ("a.yaml", b"x: !!python/object/apply:os.getcwd []", "invalid YAML"),
        ("a.png", b"not a picture", "not a readable PNG"),
        ("a.toml", b"seed = 1", "a.toml"),
    ],
)
def test_damaged_configs_are_one_line_input_errors(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="--config: found") as caught:
        read_config(tmp_path / name)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.png", "a.jpg"])
def test_missing_config_and_folder_are_named(tmp_path, name):
    with pytest.raises(InputError, match="no file"):
        read_config(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="a folder"):
        read_config(tmp_path / name)


def test_json_and_yaml_configs_are_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"seed": 3}')  # with the mark that Windows editors write
    (tmp_path / "a.yml").write_text("settings:\n  structure_weight: 0.5\n")
    assert read_config(tmp_path / "a.json") == {"seed": 3}
    assert read_config(tmp_path / "a.yml") == {"settings": {"structure_weight": 0.5}}


def test_atomic_write_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
