"""The embedded CLIP: what counts as a match, and that open_clip itself loads what is written."""

from pathlib import Path

import pytest
import torch

from freectl.errors import FreectlError
from freectl.mini import MODEL_DIR
from freectl.mini.captions import drawn, fixed_captions
from freectl.mini.clip import load_clip
from freectl.mini.domain import HELD_OUT, OBJECTS
from freectl.mini.scene import Scene, render
from freectl.mini.training.clip import GROUP, SINGLE, ClipPart, _groups, _holds, _own_group, _rivals, _words
from freectl.mini.training.data import batch_rng, scene_batch

FOX = Scene("fox", "fluent", "blue", "fluent")


def test_captions_file_is_what_the_domain_gives() -> None:
    wanted = fixed_captions()
    assert wanted == list(drawn())
    assert [one.held_out for one in wanted] == [False] * 300 + [True] * 60
    assert all(((one.object, one.style) in HELD_OUT) == one.held_out for one in wanted)


def test_a_caption_holds_if_every_word_said_is_right() -> None:
    assert _holds(_words(FOX), FOX)
    assert _holds((None, "fox", None), FOX)
    assert _holds((None, None, None), FOX)
    assert not _holds(("noto", "fox", "blue"), FOX)
    rivals = _rivals(FOX, batch_rng(0, 0))
    assert [words[1] for words in rivals if _holds(words, FOX)] == ["fox"]
    assert len({words[1] for words in rivals}) == len(OBJECTS)
    assert sum(_holds(words, FOX) for words in SINGLE) == 3


def test_each_picture_meets_the_captions_of_its_own_group() -> None:
    groups = _groups(batch_rng(0, 3), 2 * GROUP + 3)
    assert [len(group) for group in groups] == [GROUP, GROUP, 3]
    assert all(len({(scene.style, scene.background) for scene in group}) == 1 for group in groups)
    captions = len(groups) * len(OBJECTS)
    logits = torch.arange(float((2 * GROUP + 3) * captions)).view(-1, captions)
    own = _own_group(logits, groups)
    place = 0
    for number, group in enumerate(groups):
        for _ in group:
            assert own[place].tolist() == logits[place, number * len(OBJECTS) : (number + 1) * len(OBJECTS)].tolist()
            place += 1


@pytest.fixture(scope="module")
def part() -> ClipPart:
    return ClipPart(MODEL_DIR)


def test_loss_is_finite_and_falls_on_one_batch(part: ClipPart) -> None:
    optimizer = torch.optim.AdamW(part.clip.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        terms = part.losses(0, 1, 8)
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(terms["loss"].detach()))
    assert losses[-1] < losses[0]


def test_open_clip_loads_what_is_written(part: ClipPart, tmp_path: Path) -> None:
    part.export(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".txt"}
    loaded = load_clip(tmp_path)
    texts = [FOX.caption, "a picture", ""]
    with torch.no_grad():
        own = part.encode_texts(texts)
        scenes, pictures = scene_batch(batch_rng(1, 1), 3)
        images = part.clip.encode_image(pictures, normalize=True)
    torch.testing.assert_close(loaded.texts(texts), own, atol=5e-3, rtol=0)
    torch.testing.assert_close(loaded.pictures([render(one) for one in scenes]), images, atol=5e-3, rtol=0)


def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(FreectlError, match="--part clip"):
        load_clip(tmp_path)
