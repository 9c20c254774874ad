"""The mini benchmarks by name, and the files that keep their cases."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from eval.bench import control
from eval.bench.cases import Bench, Case, Layout
from eval.bench.control_pictures import together
from eval.bench.mini import KINDS, held_out_cases, mini_cases, other_cases, scene_case, style_cases
from eval.files import PROMPTS
from freectl.errors import FreectlError, InputError
from freectl.mini.domain import BACKGROUNDS, OBJECTS
from freectl.mini.scene import Scene, render

FILES = {"mini": "mini_bench.jsonl", "mini-held-out": "mini_held_out.jsonl", "mini-control": "mini_control.jsonl"}
NAMES = "mini, mini:SEED, mini-held-out, mini-style:FROM:TO, mini-control, mini-control:SEED"
ABOUT = {
    "mini": "edits of the embedded world with exact answers",
    "control": "conditions of the embedded world with exact words and outlines",
}
MAKE = "python -m eval.bench make"


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
    case = scene_case(line["key"], line["kind"], source, target)
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
    of_control = name.partition(":")[0] == "mini-control"
    if name.startswith("mini-style:"):
        styles = name.split(":")[1:]
        if len(styles) != 2:
            raise InputError("--bench", f"'{name}'", NAMES)
        cases = style_cases(styles[0], styles[1])
    elif name.startswith(("mini:", "mini-control:")):
        cases = control.named_cases(name) if of_control else other_cases(name)
    elif name not in FILES:
        raise InputError("--bench", f"'{name}'", NAMES)
    else:
        path, read = folder / FILES[name], control.from_line if of_control else from_line
        try:
            cases = [read(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise FreectlError(f"{path.name}: {error}; make it anew with `{MAKE}`") from error
    layout: Layout = "control" if of_control else "mini"
    return Bench(name, layout, tuple(cases), ABOUT[layout])


def sized(bench: Bench, side: int) -> Bench:
    """The same cases with pictures of another side in px; those of no scenes stay as they are."""

    def drawn(case: Case) -> Case:
        if case.control is not None:
            return control.control_case(case.key, case.kind, case.control.shown, case.control.targets, side)
        return case if case.scenes is None else scene_case(case.key, case.kind, *case.scenes, side)

    return replace(bench, cases=tuple(drawn(case) for case in bench.cases))


def answer(case: Case, side: int) -> Image.Image | None:
    """The exact answer of a case of scenes, RGB, `side` x `side` px; None of others."""
    if case.control is not None:
        return together(case.control.targets, side)
    return None if case.scenes is None else render(case.scenes[1], side)


def contents() -> dict[str, str]:
    """File name -> text of all files."""
    made = "\n".join(json.dumps(control.to_line(case)) for case in control.control_cases()) + "\n"
    edits = {"mini": mini_cases(), "mini-held-out": held_out_cases()}
    return {FILES[name]: to_lines(cases) for name, cases in edits.items()} | {FILES["mini-control"]: made}
