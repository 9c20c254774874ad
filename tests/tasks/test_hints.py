"""Hints for newcomers: given where they help, and nowhere else."""

import io
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from freectl import methods
from freectl.mini.scene import random_scene, render
from freectl.tasks import hints
from freectl.tasks import options as config


def photograph():
    """A picture as skimage's cat: gradients and texture up to the border."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.cat())


def test_no_scene_of_the_toy_world_is_called_foreign():
    rng = random.Random(5)
    for index in range(60):
        picture = render(random_scene(rng))
        if index % 2:
            stream = io.BytesIO()
            picture.resize((300, 300)).save(stream, "JPEG", quality=70)
            picture = Image.open(stream)
        assert hints.of_picture(picture) == []


def test_photographs_and_foreign_colours_get_one_line_with_the_way_out():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for picture in (photograph(), noise, Image.new("RGB", (64, 64), "black")):
        (line,) = hints.of_picture(picture)
        assert "toy model of 16 objects" in line
        assert "--model stable-diffusion-v1-5/stable-diffusion-v1-5" in line
        assert "\n" not in line


@pytest.mark.parametrize("verb", ["make", "Change", "turn", "replace", "remove", "add"])
def test_instructions_are_told_from_descriptions(verb):
    (line,) = hints.of_prompt(f"{verb} the horse bronze")
    assert "describe the result" in line
    assert verb.lower() in line


@pytest.mark.parametrize("prompt", ["a bronze horse", "an address", "a cat that turns", "makeup on a table", ""])
def test_descriptions_get_no_hint(prompt):
    assert hints.of_prompt(prompt) == []


def test_unknown_words_say_that_the_model_is_a_toy():
    assert hints.of_words("a fluent cat on a blue background") == []
    (line,) = hints.of_words("a zebra in the rain", "a cat")
    assert "zebra, in, the, rain" in line
    assert "--model" in line


def test_a_method_without_a_seed_names_ways_that_exist():
    line = hints.unseeded(methods.get("freecontrol"))
    assert "--set start=noise" in line
    assert "start" in methods.get("freecontrol").settings.model_fields
    assert "start" not in hints.unseeded(methods.get("pnp"))
    assert set(hints.DRAWING) <= set(methods.REGISTRY)


@pytest.mark.parametrize("command", ["edit", "control"])
def test_what_to_try_next_can_be_tried(command):
    """Whatever the method: settings that it has, in their range, and methods that the command runs."""
    for method in methods.available():
        if command == "edit" and method.name in methods.CONTROL:
            continue
        more = {"condition": ("a.png",)} if command == "control" else {}
        options = SimpleNamespace(prompt="a fox", source_prompt="", **more)
        settings = method.settings(**method.presets["default"])
        said = hints.next_step(SimpleNamespace(options=options, settings=settings, method=method), None)
        for name, value in re.findall(r"--set (\w+)=(\S+)", said):
            config.method_settings(method, "default", {name: value})
        named = re.findall(r"--method ([\w-]+(?: or [\w-]+)*)", said)
        tried = [name for names in named for name in names.split(" or ")]
        assert method.name not in tried
        assert {"all"} >= set(tried) if command == "edit" else set(tried) <= set(methods.of_conditions())
        assert re.search(r"--[a-z]", said)
