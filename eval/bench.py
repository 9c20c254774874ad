"""The mini benchmark: edits of scenes of the embedded world, each with its exact answer picture and masks.

`python -m eval.bench make` writes `prompts/mini_bench.jsonl` and `prompts/mini_held_out.jsonl`; `check` tells whether
they are what the domain gives. Cases are a function of the domain, the kind and the case's number alone.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import typer
from PIL import Image, ImageChops, ImageFilter

from eval.cases import Bench, Case
from eval.run import guarded_app
from eval.store import write_text
from freectl.errors import FreectlError, InputError
from freectl.mini.domain import ARTWORK, BACKGROUNDS, DERIVED, HELD_OUT, OBJECTS
from freectl.mini.scene import Scene, random_scene, render, render_mask

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
SEED = 0
CASES_A_KIND = 40
SOFT_EDGE = 2
"""Pixels."""
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
FILES = {"mini": "mini_bench.jsonl", "mini-held-out": "mini_held_out.jsonl"}
NAMES = "mini, mini:SEED, mini-held-out, mini-style:FROM:TO"
_MAKE = "python -m eval.bench make"
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


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
        yield _case(f"{kind}-{index:02d}", kind, source, target)


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
            cases.append(_case(f"{kind}-{style}-{object_}-{index}", kind, source, target))
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
        cases.append(_case(f"style-{source}-{target}-{index:02d}", "style", scene, scene.with_words(style=target)))
    return cases


def _case(key: str, kind: str, source: Scene, target: Scene) -> Case:
    return Case(
        key=key,
        kind=kind,
        source_prompt=source.caption,
        prompt=target.caption,
        picture=lambda: render(source),
        mask=lambda: either_mask(source, target),
        scenes=(source, target),
        concept=source.object,
    )


def either_mask(source: Scene, target: Scene) -> Image.Image:
    """Where the object of the input or of the answer is, with its soft edge, mode "L", 0 or 255.

    An exact mask ends where the drawing is half transparent; all that an edit of the object changes lies within
    two pixels of it.
    """
    both = ImageChops.lighter(render_mask(source), render_mask(target))
    return both.filter(ImageFilter.MaxFilter(2 * SOFT_EDGE + 1))


def to_lines(cases: list[Case]) -> str:
    """JSON lines; the answer is `Scene.with_words(**change)` of the source.

    Raises:
        ValueError: a case is not an edit of a scene.
    """
    lines = []
    for case in cases:
        if case.scenes is None:
            raise ValueError(f"{case.key} is not an edit of a scene")
        source, target = case.scenes
        change = {word: getattr(target, word) for word in KINDS[case.kind]}
        line = {"key": case.key, "kind": case.kind, "source": asdict(source), "change": change}
        lines.append(json.dumps({**line, "source_prompt": case.source_prompt, "prompt": case.prompt}))
    return "\n".join(lines) + "\n"


def from_line(line: dict[str, Any]) -> Case:
    """A case from its JSON line.

    Raises:
        KeyError, TypeError: fields are missing or unknown.
        ValueError: words that the domain does not have, or captions that are not the scenes'.
    """
    source = Scene(**{**line["source"], "shift": tuple(line["source"]["shift"])})
    target = source.with_words(**line["change"])
    case = _case(line["key"], line["kind"], source, target)
    for scene in (source, target):
        if scene.object not in OBJECTS or scene.background not in BACKGROUNDS:
            raise ValueError(f"'{scene.caption}' is not of this domain")
    if (case.source_prompt, case.prompt) != (line["source_prompt"], line["prompt"]):
        raise ValueError(f"{case.key}: captions differ from the scenes'")
    return case


def load_mini(name: str = "mini", folder: Path = PROMPTS) -> Bench:
    """One of the mini benchmarks.

    Raises:
        InputError: no such benchmark.
        FreectlError: its file is missing, damaged, or of another domain.
    """
    if name.startswith("mini-style:"):
        styles = name.split(":")[1:]
        if len(styles) != 2:
            raise InputError("--bench", f"'{name}'", NAMES)
        cases = style_cases(styles[0], styles[1])
    elif name.startswith("mini:"):
        cases = other_cases(name)
    elif name not in FILES:
        raise InputError("--bench", f"'{name}'", NAMES)
    else:
        path = folder / FILES[name]
        try:
            cases = [from_line(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise FreectlError(f"{path.name}: {error}; make it anew with `{_MAKE}`") from error
    return Bench(name, "mini", tuple(cases), "edits of the embedded world with exact answers")


def contents() -> dict[str, str]:
    """File name -> text of both files."""
    return {FILES["mini"]: to_lines(mini_cases()), FILES["mini-held-out"]: to_lines(held_out_cases())}


@app.command()
def make(folder: Path = PROMPTS) -> None:
    """Write the benchmark files."""
    for name, text in contents().items():
        write_text(folder / name, text, "--folder")
        sys.stdout.write(f"{folder / name}: {len(text.splitlines())} cases\n")


@app.command()
def check(folder: Path = PROMPTS) -> None:
    """Exit 1 if a file is not what the domain gives."""
    for name, text in contents().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} is stale; make it anew with `{_MAKE}`\n")
            raise typer.Exit(1)


if __name__ == "__main__":
    guarded_app(app)
