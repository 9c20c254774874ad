"""What `keep_background` takes: a word of its own, and no bases."""

import random

import numpy as np
import pytest

import freectl
from freectl.files.cache import Cache
from freectl.mini.scene import random_scene, render


@pytest.fixture
def scene():
    return random_scene(random.Random(4), styles=("noto",))


def test_the_word_that_may_change_is_its_own_and_builds_no_bases(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path))
    picture = render(scene)
    source = f"a noto {scene.object} on a {scene.background} background"
    prompt = f"a fluent cat on a {scene.background} background"
    options = {"source_prompt": source, "steps": 4, "keep_background": True}
    kept = freectl.edit(picture, prompt, "freecontrol", keep_concept=scene.object, **options)
    assert kept.cost["cached"]["bases"], "those beside the model"
    assert [entry for entry in Cache().entries() if entry.kind == "bases"] == []
    assert kept.settings["keep_concept"] == scene.object
    assert kept.settings["concept"] is None
    # the same pixels are kept as where the word is the concept of a method that has no use for one
    by_concept, by_word = (
        freectl.edit(picture, prompt, "sdedit", **{name: scene.object}, **options)
        for name in ("concept", "keep_concept")
    )
    assert by_concept.image.tobytes() == by_word.image.tobytes()
    same = (np.asarray(kept.image) == np.asarray(picture)).all(-1)
    assert 0.2 < same.mean() < 1
    both = (np.asarray(by_word.image) == np.asarray(picture)).all(-1)
    assert same[both].mean() > 0.95
