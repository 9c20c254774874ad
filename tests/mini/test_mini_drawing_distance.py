"""The distance to the nearest true drawing: nothing for a true one, whatever its pose, and much for another."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from freectl.mini.captions import Wanted
from freectl.mini.drawing_distance import drawing_distance, mean_distances
from freectl.mini.scene import Scene, random_scene, render


def wanted(scene: Scene) -> Wanted:
    return Wanted(scene.object, scene.style, scene.background, False)


@pytest.mark.parametrize("style", ["noto", "fluent", "sketch", "silhouette"])
def test_the_pose_of_a_true_drawing_is_found(style: str) -> None:
    scene = random_scene(random.Random(style), styles=(style,), held_out=False)
    distance, found = drawing_distance(render(scene), wanted(scene))
    assert distance < 2e-3 if style == "sketch" else distance < 1e-3
    assert abs(found.rotation - scene.rotation) < 2
    assert abs(found.scale - scene.scale) < 0.03
    assert np.abs(np.subtract(found.shift, scene.shift)).max() < 0.02
    exact = np.square(np.subtract(render(found), render(scene), dtype=float) / 255).mean()
    assert distance == pytest.approx(exact)


def test_damage_and_other_objects_are_far() -> None:
    scene = random_scene(random.Random(3), styles=("twemoji",), held_out=False)
    picture = render(scene)
    other = "car" if scene.object != "car" else "fox"
    true, soft, wrong = (
        drawing_distance(sample, words)[0]
        for sample, words in (
            (picture, wanted(scene)),
            (picture.filter(ImageFilter.GaussianBlur(3)), wanted(scene)),
            (picture, Wanted(other, scene.style, scene.background, False)),
        )
    )
    assert true < soft < wrong
    assert wrong > 10 * true


def test_an_empty_picture_has_a_distance() -> None:
    blank = Image.new("RGB", (64, 64), (255, 255, 255))
    scores = mean_distances(
        [blank, blank], [Wanted("fox", "noto", "white", False), Wanted("cat", "noto", "white", False)]
    )
    assert list(scores) == ["drawing_distance_noto"]
    assert scores["drawing_distance_noto"] > 20
