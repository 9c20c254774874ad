"""The control benchmark: conditions of the embedded world, words for them, and exact answers to both.

A case shows an outline in one of eight ways and asks for words. The answer has the words, and the outline of what was
shown, exactly: also where the words name another object, whose own outline differs. Cases are a function of the domain,
the seed, the kind and the case's number alone.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from eval.bench.cases import Case, Control
from eval.bench.control_pictures import Draw, blob, canny, depth, on_white, together, true_mask, wire
from eval.bench.world import world_side
from freectl.errors import InputError
from freectl.mini.domain import ARTWORK, BACKGROUNDS, HELD_OUT, OBJECTS, caption
from freectl.mini.scene import Scene, random_scene, render

SEED = 0
CASES_A_KIND = 30
DRAWN: dict[str, Draw] = {
    "sketch": on_white("sketch"),
    "silhouette": on_white("silhouette"),
    "canny": canny,
    "depth": depth,
    "pose": render,
    "mesh": wire,
    "blob": blob,
    "two": on_white("sketch"),
}
"""Kind of condition -> how it is drawn; "pose" is a drawing in another style, turned or shrunk further than any that
the generator has seen, "two" shows two objects."""
KEPT = {"pose": True, "mesh": False}
"""Whether the words name the object that is shown; in the other kinds in every second case."""
TURNS, SIZES = (20.0, 40.0), (0.42, 0.55)
"""Degrees and scales of poses; the generator knows up to 15 degrees, and from 0.6 on."""
SIDE_BY_SIDE = 0.24
"""Distance of two objects' centres from the picture's, relative to its side."""


def control_cases(seed: int = SEED, count: int = CASES_A_KIND) -> list[Case]:
    """`count` cases of each kind; no target is a held-out (object, style) pair."""
    return [case for kind in DRAWN for case in _kind_cases(kind, seed, count)]


def named_cases(name: str) -> list[Case]:
    """The cases of `mini-control:SEED`: to tune on, so that the benchmark stays a test.

    Raises:
        InputError: not a whole number above 0, the benchmark's own.
    """
    number = name.partition(":")[2]
    if not (number.isascii() and number.isdecimal()) or int(number) == SEED:
        raise InputError("--bench", f"'{name}'", "mini-control:SEED, a whole number above 0")
    return control_cases(int(number))


def _kind_cases(kind: str, seed: int, count: int) -> Iterator[Case]:
    for index in range(count):
        rng = random.Random(f"mini-control/{seed}/{kind}/{index}")
        shown = _shown(rng, kind, index)
        kept = KEPT.get(kind, index % 2 == 0)
        known = [one.object for one in shown]
        while True:
            object_ = known[0] if kept else rng.choice([name for name in OBJECTS if name not in known])
            style, ground = rng.choice(ARTWORK), rng.choice(tuple(BACKGROUNDS))
            words = {"object": object_, "style": style, "background": ground}
            # a drawing in colour must have something to change
            changed = kind != "pose" or (style != shown[0].style and ground != shown[0].background)
            if changed and (object_, style) not in HELD_OUT:
                break
        yield control_case(f"{kind}-{index:02d}", kind, shown, tuple(one.with_words(**words) for one in shown))


def _shown(rng: random.Random, kind: str, index: int) -> tuple[Scene, ...]:
    scene = random_scene(rng, styles=ARTWORK, held_out=False)
    if kind == "pose" and index % 2 == 0:
        return (replace(scene, rotation=round(rng.choice((-1, 1)) * rng.uniform(*TURNS), 2)),)
    if kind == "pose":
        return (replace(scene, scale=round(rng.uniform(*SIZES), 4)),)
    if kind != "two":
        return (scene,)
    while (other := random_scene(rng, styles=ARTWORK, held_out=False)).object == scene.object:
        pass
    pair = (scene, replace(other, background=scene.background))
    return tuple(
        replace(
            one,
            scale=round(rng.uniform(*SIZES), 4),
            shift=(side * SIDE_BY_SIDE, round(rng.uniform(-0.12, 0.12), 4)),
        )
        for one, side in zip(pair, (-1, 1), strict=True)
    )


def control_case(
    key: str, kind: str, shown: tuple[Scene, ...], targets: tuple[Scene, ...], side: int | None = None
) -> Case:
    """A condition that shows these scenes, and the scenes that its words ask for in their place.

    Args:
        side: of its pictures in px; None is the embedded model's.
    """
    side = side or world_side()
    return Case(
        key=key,
        kind=kind,
        source_prompt=_said(kind, shown),
        prompt=targets[0].caption,
        picture=lambda: together(shown, side, DRAWN[kind]),
        mask=lambda: true_mask(shown, side),
        control=Control(shown, targets),
        concept=shown[0].object,
    )


def _said(kind: str, shown: tuple[Scene, ...]) -> str:
    """What the condition shows, in words of this world as far as it has some."""
    if kind == "pose":
        return shown[0].caption
    if kind in ("sketch", "silhouette"):
        return caption(kind, shown[0].object, "white")
    return " and ".join(caption(None, one.object, None) for one in shown)


def to_line(case: Case) -> dict[str, Any]:
    """A case as plain values; the answer is the shown scenes with other words.

    Raises:
        ValueError: a case is no condition of scenes.
    """
    if case.control is None:
        raise ValueError(f"{case.key} is no condition of scenes")
    target = case.control.targets[0]
    words = {"object": target.object, "style": target.style, "background": target.background}
    shown = [asdict(one) for one in case.control.shown]
    return {"key": case.key, "kind": case.kind, "shown": shown, "words": words, "prompt": case.prompt}


def from_line(line: dict[str, Any]) -> Case:
    """A case from its plain values.

    Raises:
        KeyError, TypeError: fields are missing or unknown.
        ValueError: words that the domain does not have, or a prompt that is not theirs.
    """
    shown = tuple(Scene(**{**one, "shift": tuple(one["shift"])}) for one in line["shown"])
    words = {name: line["words"][name] for name in ("object", "style", "background")}
    targets = tuple(one.with_words(**words) for one in shown)
    for one in (*shown, *targets):
        if one.object not in OBJECTS or one.background not in BACKGROUNDS or one.style not in ARTWORK:
            raise ValueError(f"'{one.caption}' is not of this domain")
    if line["kind"] not in DRAWN:
        raise ValueError(f"no kind '{line['kind']}'")
    case = control_case(line["key"], line["kind"], shown, targets)
    if case.prompt != line["prompt"]:
        raise ValueError(f"{case.key}: the prompt is not that of its words")
    return case
