"""Scenes: rendering, masks, captions and exports, against plain recomputations."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from freectl.mini import SPRITES
from freectl.mini.domain import (
    ARTWORK,
    BACKGROUNDS,
    HELD_OUT,
    OBJECTS,
    PICTURE_SIZE,
    SAME_OUTLINE,
    STYLES,
    caption,
    vocabulary,
)
from freectl.mini.export import may_write, scenes, split_of, write_scenes
from freectl.mini.scene import Scene, random_scene, render, render_mask, sprite

FOX = Scene("fox", "fluent", "blue", "fluent", rotation=7.0, scale=0.8, shift=(0.05, -0.03))


def some(count: int, **options) -> list[Scene]:
    rng = random.Random(5)
    return [random_scene(rng, **options) for _ in range(count)]


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def neighbours(mask: np.ndarray, inside: bool) -> np.ndarray:
    """The mask grown by a pixel in all directions, or shrunk by one."""
    padded = np.pad(mask, 1, constant_values=not inside)
    height, width = mask.shape
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.any(shifts, axis=0) if inside else np.all(shifts, axis=0)


def naive_alpha(scene: Scene, size: int, fine: int = 8) -> np.ndarray:
    """Coverage by nearest-neighbour lookup on a fine grid: rotate, scale, mirror and shift each point by hand."""
    with Image.open(SPRITES) as sheet:
        side = sheet.height // len(ARTWORK)
        x, y = list(OBJECTS).index(scene.object) * side, ARTWORK.index(scene.artwork) * side
        alpha = np.asarray(sheet.convert("RGBA").crop((x, y, x + side, y + side)))[..., 3] / 255
    ys, xs = (np.mgrid[0 : size * fine, 0 : size * fine] + 0.5) / (size * fine)
    dx, dy = xs - 0.5 - scene.shift[0], ys - 0.5 - scene.shift[1]
    angle = np.radians(scene.rotation)
    # y points down: a counter-clockwise turn of the object is this turn of the sampling point
    u = (np.cos(angle) * dx - np.sin(angle) * dy) / scene.scale
    v = (np.sin(angle) * dx + np.cos(angle) * dy) / scene.scale
    if scene.flip:
        u = -u
    column, row = np.floor((u + 0.5) * side).astype(int), np.floor((v + 0.5) * side).astype(int)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    values = np.where(inside, alpha[row.clip(0, side - 1), column.clip(0, side - 1)], 0)
    return values.reshape(size, fine, size, fine).mean((1, 3))


@pytest.mark.parametrize("scene", [FOX, *some(6)], ids=lambda scene: scene.caption.replace(" ", "_"))
def test_rendering_is_deterministic(scene):
    assert render(scene).tobytes() == render(replace(scene)).tobytes()
    assert render_mask(scene).tobytes() == render_mask(replace(scene)).tobytes()
    sprite.cache_clear()
    assert render(scene).tobytes() == render(scene).tobytes()
    assert (render(scene).mode, render(scene).size) == ("RGB", (PICTURE_SIZE, PICTURE_SIZE))
    assert render(scene, 100).size == render_mask(scene, 100).size == (100, 100)


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [-15.0, 0.0, 12.0])
@pytest.mark.parametrize("object_", ["fox", "car", "apple"])
def test_mask_equals_a_pointwise_transform(object_, rotation, flip, size):
    scene = replace(FOX, object=object_, rotation=rotation, flip=flip)
    mask, coverage = array(render_mask(scene, size)), naive_alpha(scene, size)
    assert set(np.unique(mask)) == {0, 255}
    wrong = (mask == 255) != (coverage >= 0.5)
    assert wrong.sum() <= 0.01 * wrong.size
    assert np.abs(coverage - 0.5)[wrong].max(initial=0) < 0.35  # only pixels the edge runs through


@pytest.mark.parametrize("scene", some(25, styles=(*ARTWORK, "silhouette")), ids=lambda s: s.caption.replace(" ", "_"))
def test_mask_is_where_the_picture_differs_from_the_background(scene):
    """Up to pixels on the edge: beyond the mask nothing changes, and well inside it the background does not matter."""
    mask = array(render_mask(scene)) == 255
    difference = np.abs(array(render(scene)) - BACKGROUNDS[scene.background]).max(-1)
    far = ~neighbours(neighbours(mask, inside=True), inside=True)
    assert difference[far].max(initial=0) <= 8  # soft shadows of the artwork stay faint
    other = next(name for name in BACKGROUNDS if name != scene.background)
    changed = np.abs(array(render(scene)) - array(render(replace(scene, background=other)))).max(-1)
    contrast = np.abs(np.subtract(BACKGROUNDS[scene.background], BACKGROUNDS[other])).max()
    assert (changed >= 0.5 * contrast)[~mask].mean() > 0.99
    assert (changed <= 0.5 * contrast + 2)[mask].mean() > 0.99
    assert 0.05 < mask.mean() < 0.95


def test_flat_backgrounds_are_exact():
    for name, colour in BACKGROUNDS.items():
        picture = array(render(replace(FOX, background=name, scale=0.6, shift=(0, 0))))
        assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == colour).all()


def test_pose_moves_the_object():
    def centre(scene: Scene) -> np.ndarray:
        return np.argwhere(array(render_mask(scene)) == 255).mean(0)

    still = replace(FOX, rotation=0, shift=(0.0, 0.0), scale=0.6)
    moved = replace(still, shift=(0.125, -0.0625))
    told = [-0.0625 * PICTURE_SIZE, 0.125 * PICTURE_SIZE]  # rows, columns
    np.testing.assert_allclose(centre(moved) - centre(still), told, atol=0.5)
    small, large = (array(render_mask(replace(still, scale=s))).sum() for s in (0.6, 0.9))
    assert large / small == pytest.approx(1.5**2, rel=0.05)
    flipped = array(render_mask(replace(still, object="car", flip=True)))
    assert (flipped == array(render_mask(replace(still, object="car")))[:, ::-1]).mean() > 0.98


def test_derived_styles():
    sketch = replace(FOX, style="sketch", background="white")
    picture = array(render(sketch))
    assert np.ptp(picture, axis=-1).max() < 30  # dark lines on white, next to no colour
    assert picture.min() < 120
    assert (picture.min(-1) > 240).mean() > 0.4
    silhouette = replace(FOX, style="silhouette")
    inside = neighbours(neighbours(array(render_mask(silhouette)) == 255, inside=False), inside=False)
    assert len(np.unique(array(render(silhouette))[inside], axis=0)) == 1
    assert render_mask(silhouette).tobytes() == render_mask(FOX).tobytes()
    assert render_mask(sketch).tobytes() == render_mask(FOX).tobytes()


def test_outlines_that_two_objects_share_are_the_named_ones():
    """Root mean square difference of upright silhouettes, in grey levels of 255, over all pairs of one artwork."""
    same = {}
    for artwork in ARTWORK:
        flat = {word: array(render(Scene(word, "silhouette", "white", artwork))) for word in OBJECTS}
        for one, other in itertools.combinations(sorted(OBJECTS), 2):
            if np.sqrt(np.square(flat[one] - flat[other]).mean()) < 2:
                same[other, artwork] = one
    assert same == SAME_OUTLINE


def test_styles_of_one_pose_are_different_pictures_of_one_outline_size():
    pictures = {style: render(FOX.with_words(style=style)).tobytes() for style in STYLES}
    assert len(set(pictures.values())) == len(STYLES)


@given(seed=st.integers(0, 10**6), style=st.sampled_from(STYLES), object_=st.sampled_from(list(OBJECTS)))
@settings(max_examples=50, deadline=None)
def test_with_words_keeps_the_pose(seed, style, object_):
    scene = random_scene(random.Random(seed))
    changed = scene.with_words(style=style, object=object_)
    for name in ("rotation", "scale", "shift", "flip"):
        assert getattr(changed, name) == getattr(scene, name)
    assert (changed.style, changed.object) == (style, object_)
    assert changed.artwork == (style if style in ARTWORK else scene.artwork)
    assert changed.background == ("white" if style == "sketch" else scene.background)
    assert scene.with_words() == scene
    assert scene.with_words(background="pink").background == ("white" if scene.style == "sketch" else "pink")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fluent", "fox", "blue"), "a fluent fox on a blue background"),
        ((None, "apple", "orange"), "an apple on an orange background"),
        (("noto", "apple", None), "a noto apple"),
        ((None, None, "red"), "a picture on a red background"),
        (("sketch", None, None), "a sketch picture"),
        ((None, None, None), "a picture"),
    ],
)
def test_captions(words, expected):
    assert caption(*words) == expected


def test_captions_use_the_vocabulary_only():
    known = set(vocabulary())
    assert FOX.caption == "a fluent fox on a blue background"
    for scene in some(200):
        words = scene.caption.split()
        assert set(words) <= known
        assert {scene.object, scene.style, scene.background} <= set(words)
        articles = [(a, b) for a, b in zip(words, words[1:], strict=False) if a in ("a", "an")]
        assert all((a == "an") == (b[0] in "aeiou") for a, b in articles)


def test_random_scenes_stay_in_the_domain():
    for scene in some(300):
        assert abs(scene.rotation) <= 15
        assert 0.6 <= scene.scale <= 0.95
        assert all(abs(s) <= (1 - scene.scale) / 2 + 1e-4 for s in scene.shift)
        assert scene.artwork in ARTWORK
        assert scene.artwork == scene.style or scene.style not in ARTWORK
        assert scene.style != "sketch" or scene.background == "white"
    assert some(20) == some(20)
    assert {s.style for s in some(100)} == set(STYLES)
    assert {s.object for s in some(400)} == set(OBJECTS)


def test_held_out_pairs():
    assert all(object_ in OBJECTS and style in ARTWORK for object_, style in HELD_OUT)
    assert len(HELD_OUT) == pytest.approx(0.1 * len(OBJECTS) * len(ARTWORK), abs=1)
    assert all((s.object, s.style) in HELD_OUT for s in some(40, held_out=True))
    assert not any((s.object, s.style) in HELD_OUT for s in some(600, held_out=False))
    assert any((s.object, s.style) in HELD_OUT for s in some(600))


def test_scene_survives_json():
    for scene in some(5):
        facts = json.loads(json.dumps(scene.to_dict()))
        assert facts.pop("caption") == scene.caption
        assert Scene(**facts | {"shift": tuple(facts["shift"])}) == scene


def test_scene_sequences_extend():
    assert list(scenes(5, 3, STYLES)) == list(scenes(9, 3, STYLES))[:5]
    assert list(scenes(5, 3, STYLES)) != list(scenes(5, 4, STYLES))


def test_every_tenth_scene_is_for_testing():
    assert [i for i in range(30) if split_of(i) == "test"] == [9, 19, 29]


def read(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    for line in lines:
        fields = {name: line[name] for name in Scene.__dataclass_fields__}
        scene = Scene(**fields | {"shift": tuple(fields["shift"])})
        with Image.open(out / line["picture"]) as picture, Image.open(out / line["mask"]) as mask:
            assert picture.convert("RGB").tobytes() == render(scene, picture.width).tobytes()
            assert mask.mode == "L"
            assert mask.tobytes() == render_mask(scene, picture.width).tobytes()
        assert line["caption"] == scene.caption
    return lines


def test_single_layout(tmp_path):
    assert write_scenes(tmp_path, 6, 1, styles=STYLES, size=32) == 6
    lines = read(tmp_path)
    assert [line["picture"] for line in lines] == [f"pictures/{i:05d}.png" for i in range(6)]
    again = tmp_path / "again"
    write_scenes(again, 6, 1, styles=STYLES, size=32)
    assert (again / "scenes.jsonl").read_bytes() == (tmp_path / "scenes.jsonl").read_bytes()
    name = lines[0]["picture"]
    assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_paired_layout(tmp_path):
    assert write_scenes(tmp_path, 10, 1, styles=("noto", "fluent"), layout="paired", size=32) == 20
    lines = {line["picture"]: line for line in read(tmp_path)}
    assert len(lines) == 20
    for picture, line in lines.items():
        split, side, name = Path(picture).parts
        assert line["style"] == {"A": "noto", "B": "fluent"}[side]
        assert split == ("test" if name == "00009.png" else "train")
        twin = lines[f"{split}/{'B' if side == 'A' else 'A'}/{name}"]
        for same in ("object", "background", "rotation", "scale", "shift", "flip"):
            assert line[same] == twin[same]


@pytest.mark.parametrize("styles", [("sketch", "fluent"), ("silhouette", "noto"), ("twemoji", "sketch")])
def test_conditions_derive_from_the_drawing_they_are_paired_with(tmp_path, styles):
    write_scenes(tmp_path, 6, 2, styles=styles, layout="paired", size=32)
    lines = {line["picture"]: line for line in read(tmp_path)}
    for i in range(6):
        a, b = (lines[f"train/{side}/{i:05d}.png"] for side in "AB")
        assert (a["style"], b["style"]) == styles
        assert a["artwork"] == b["artwork"] == next(style for style in styles if style in ARTWORK)
        assert (a["object"], a["rotation"]) == (b["object"], b["rotation"])
        masks = [(tmp_path / line["mask"]).read_bytes() for line in (a, b)]
        assert masks[0] == masks[1]


def test_unpaired_layout(tmp_path):
    assert write_scenes(tmp_path, 10, 1, styles=("noto", "fluent"), layout="unpaired", size=32) == 20
    lines = read(tmp_path)
    folders = {folder: [line for line in lines if line["picture"].startswith(f"{folder}/")] for folder in
               ("trainA", "trainB", "testA", "testB")}  # fmt: skip
    assert [len(part) for part in folders.values()] == [9, 9, 1, 1]
    poses = [{(line["rotation"], line["scale"]) for line in folders[name]} for name in ("trainA", "trainB")]
    assert not poses[0] & poses[1]
    assert {line["style"] for line in folders["trainA"]} == {"noto"}
    assert {line["style"] for line in folders["testB"]} == {"fluent"}


def test_an_unfinished_folder_is_gone_on_with_by_the_same_command_alone(tmp_path, monkeypatch):

    asked = {"count": 4, "seed": 3, "styles": STYLES, "layout": "single", "size": 32}
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert may_write(whole, **asked)
    write_scenes(whole, **asked)
    assert not may_write(whole, **asked)  # finished
    saved, save = [], Image.Image.save

    def full(self, path, *args, **kwargs):
        saved.append(path)
        if len(saved) == 4:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space"):
            write_scenes(torn, **asked)
    assert may_write(torn, **asked)
    assert not may_write(torn, **(asked | {"seed": 4}))
    write_scenes(torn, **asked)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(torn) for path in torn.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (torn / name).read_bytes() for name in files)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    assert not may_write(tmp_path / "other", **asked)
