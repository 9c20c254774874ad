"""The mini benchmark: edits of scenes of the embedded world, each with its exact answer picture and masks.

Cases are a function of the domain, the kind and the case's number alone.
"""

import random
from collections.abc import Iterator
from itertools import product

from PIL import Image, ImageChops, ImageFilter

from eval.bench.cases import Case
from eval.bench.world import pixels, world_side
from freectl.errors import InputError
from freectl.mini.domain import ARTWORK, BACKGROUNDS, DERIVED, HELD_OUT, OBJECTS
from freectl.mini.scene import Scene, random_scene, render, render_mask

SEED = 0
CASES_A_KIND = 40
SOFT_EDGE = 2
"""Pixels of a picture of 64 px."""
KINDS: dict[str, tuple[str, ...]] = {
    "object": ("object",),
    "style": ("style",),
    "background": ("background",),
    "object+style": ("object", "style"),
    "object+background": ("object", "background"),
    "all": ("object", "style", "background"),
}
"""Edit type -> words that change; the others and the pose are kept."""
HELD_OUT_A_PAIR = 6
CONDITION_EVERY = 5
"""Where the style changes, every fifth input is a sketch or a silhouette of the target's drawing: a condition, whose
outline the answer has exactly. All other inputs, and all targets, are artwork: 24 conditions among 240 cases."""


def mini_cases(seed: int = SEED, count: int = CASES_A_KIND) -> list[Case]:
    """`count` cases of each kind; no target is a held-out (object, style) pair, no word changes to itself."""
    return [case for kind in KINDS for case in _kind_cases(kind, seed, count)]


def other_cases(name: str) -> list[Case]:
    """Cases drawn like the benchmark's with the seed of `mini:SEED`: to tune on, so that the benchmark stays a test.

    Raises:
        InputError: not a whole number above 0, the benchmark's own.
    """
    number = name.partition(":")[2]
    if not (number.isascii() and number.isdecimal()) or int(number) == SEED:
        raise InputError("--bench", f"'{name}'", "mini:SEED, a whole number above 0")
    return mini_cases(int(number))


def _kind_cases(kind: str, seed: int, count: int) -> Iterator[Case]:
    changed = KINDS[kind]
    targets = {
        "object": _turns(tuple(OBJECTS), f"{seed}/{kind}/objects"),
        "style": _turns(ARTWORK, f"{seed}/{kind}/styles"),
        "background": _turns(tuple(BACKGROUNDS), f"{seed}/{kind}/backgrounds"),
    }
    for index in range(count):
        rng = random.Random(f"mini-bench/{seed}/{kind}/{index}")
        wanted = {word: next(targets[word]) for word in changed}
        condition = "style" in changed and index % CONDITION_EVERY == CONDITION_EVERY - 1
        while True:
            source = _condition(rng, wanted["style"], index) if condition else _artwork(rng)
            target = source.with_words(**wanted)
            if _valid(source, target, changed):
                break
            if rng.random() < 0.1:  # the wanted words may be a held-out pair, whatever the source
                wanted = {word: next(targets[word]) for word in changed}
        yield scene_case(f"{kind}-{index:02d}", kind, source, target)


def _turns(words: tuple[str, ...], seed: str) -> Iterator[str]:
    """All words in a random order, then all in another, and so on: each comes as often as any other."""
    rng = random.Random(f"mini-bench/{seed}")
    while True:
        yield from rng.sample(words, len(words))


def _artwork(rng: random.Random) -> Scene:
    return random_scene(rng, styles=ARTWORK, held_out=False)


def _condition(rng: random.Random, artwork: str, index: int) -> Scene:
    style = DERIVED[(index // CONDITION_EVERY) % len(DERIVED)]
    drawn = random_scene(rng, styles=(artwork,), held_out=None)
    return drawn.with_words(style=style)


def _valid(source: Scene, target: Scene, changed: tuple[str, ...]) -> bool:
    differ = all(getattr(source, word) != getattr(target, word) for word in changed)
    return differ and (target.object, target.style) not in HELD_OUT


def held_out_cases(seed: int = SEED, count: int = HELD_OUT_A_PAIR) -> list[Case]:
    """For each held-out pair, `count` edits of the object, of the style, and of both, that end in it."""
    cases = []
    for (object_, style), kind in product(HELD_OUT, ("object", "style", "object+style")):
        for index in range(count):
            rng = random.Random(f"mini-held-out/{seed}/{object_}/{style}/{kind}/{index}")
            wanted = {word: {"object": object_, "style": style}[word] for word in KINDS[kind]}
            while True:
                source = _artwork(rng)
                if "style" not in wanted:
                    source = source.with_words(style=style)
                if "object" not in wanted:
                    source = source.with_words(object=object_)
                target = source.with_words(**wanted)
                seen = (source.object, source.style) not in HELD_OUT
                if seen and all(getattr(source, word) != value for word, value in wanted.items()):
                    break
            cases.append(scene_case(f"{kind}-{style}-{object_}-{index}", kind, source, target))
    return cases


def style_cases(source: str, target: str, count: int = 48, seed: int = SEED) -> list[Case]:
    """Scenes of one style that become another: what a translating GAN is trained for.

    Raises:
        InputError: not two different artwork styles.
    """
    if source not in ARTWORK or target not in ARTWORK or source == target:
        raise InputError("--bench", f"mini-style:{source}:{target}", f"two of {', '.join(ARTWORK)}")
    cases = []
    for index in range(count):
        scene = random_scene(random.Random(f"mini-style/{seed}/{source}/{target}/{index}"), styles=(source,))
        cases.append(scene_case(f"style-{source}-{target}-{index:02d}", "style", scene, scene.with_words(style=target)))
    return cases


def scene_case(key: str, kind: str, source: Scene, target: Scene, side: int | None = None) -> Case:
    """An edit of a scene, whose answer is another.

    Args:
        side: of its pictures in px; None is the embedded model's.
    """
    side = side or world_side()
    return Case(
        key=key,
        kind=kind,
        source_prompt=source.caption,
        prompt=target.caption,
        picture=lambda: render(source, side),
        mask=lambda: either_mask(source, target, side),
        scenes=(source, target),
        appearance=(lambda: render(example(key, target), side)) if _restyled(source, target) else None,
        concept=source.object,
    )


def _restyled(source: Scene, target: Scene) -> bool:
    return source.style != target.style and source.with_words(style=target.style) == target


def example(key: str, target: Scene) -> Scene:
    """Another object in the target's style on its background, in a pose of its own: whose looks an edit may take."""
    rng = random.Random(f"mini-appearance/{key}")
    while True:
        scene = random_scene(rng, styles=(target.style,))
        if scene.object != target.object:
            return scene.with_words(background=target.background)


def either_mask(source: Scene, target: Scene, side: int) -> Image.Image:
    """Where the object of the input or of the answer is, with its soft edge, mode "L", 0 or 255.

    An exact mask ends where the drawing is half transparent; all that an edit of the object changes lies within
    two pixels of it, of a picture of 64 px.
    """
    both = ImageChops.lighter(render_mask(source, side), render_mask(target, side))
    return both.filter(ImageFilter.MaxFilter(2 * pixels(SOFT_EDGE, side) + 1))
