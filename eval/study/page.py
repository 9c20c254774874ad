"""The questions of a study, and its page: one HTML file with pictures, script and style inside."""

import base64
import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations, cycle
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from eval.files import read_picture
from eval.report.pictures import STUDIED, grid_variants, reference
from eval.results.reading import Results
from freectl.errors import InputError, unknown

TEMPLATE = Path(__file__).with_name("template.html")
LONGEST = 512
"""Longest side of an embedded picture in px; smaller ones are kept as they are."""
TRUTH, SOURCE = "(exact answer)", "(input unchanged)"
"""Controls of the caption question: what an attentive participant answers yes, and mostly no, to."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        task: "real", "prefer" or "caption".
        names: what the pictures are, in the order shown: variants, or a control. Never shown.
        pictures: files. source: shown above them, or None. text: the caption. case: key.
        practice: the solution is shown, the answer not scored.
    """

    task: str
    case: str
    names: tuple[str, ...]
    pictures: tuple[Path, ...]
    text: str = ""
    source: Path | None = None
    practice: bool = False


def questions_for(
    results: Results, tasks: Sequence[str], labels: Sequence[str] | None, count: int, practice: int, seed: int
) -> list[Question]:
    """`count` questions of each kind in random order, kinds one after the other; variants come equally often.

    Raises:
        InputError: a variant without results, or too few variants or pictures for a kind.
    """
    variants = list(labels) if labels else grid_variants(results)[:STUDIED]
    if not results.pictured:
        raise InputError("DIR", "results without their pictures", "folders as eval.run wrote them")
    for label in variants:
        if label not in results.pictured:
            raise unknown("--methods", label, results.pictured)
    rng = random.Random(f"study/{seed}")
    makers = {"real": _real, "prefer": _prefer, "caption": _caption}
    made = []
    for task in tasks:
        number = count + (practice if task == "real" else 0)
        own = [one for one, _ in zip(makers[task](results, variants, rng), range(number), strict=False)]
        if task == "real":
            own = [Question(**{**vars(one), "practice": index < practice}) for index, one in enumerate(own)]
        made += own
    return made


def _real(results: Results, variants: Sequence[str], rng: random.Random) -> Iterator[Question]:
    """A method's picture beside a real one: the exact answer where there is one, else the input."""
    for variant, case in _turns(results, variants, rng):
        real = reference(results, case, "answers") or reference(results, case, "inputs")
        if real is None:
            raise InputError("DIR", f"no inputs of case {case}", "folders that eval.run wrote")
        yield _shuffled("real", case, [("real", real), (variant, _made(results, case, variant))], rng)


def _prefer(results: Results, variants: Sequence[str], rng: random.Random) -> Iterator[Question]:
    """Two methods' edits of one picture."""
    pairs = list(combinations(variants, 2))
    if not pairs:
        raise InputError("--tasks", f"prefer with {len(variants)} variants", "two or more variants")
    rng.shuffle(pairs)
    orders = {pair: _order([c for c in results.cases if _both(results, c, pair)], rng) for pair in pairs}
    if not any(orders.values()):
        raise InputError("--tasks", "prefer, and no case that two variants share", "variants with shared cases")
    used: dict[tuple[str, str], int] = dict.fromkeys(pairs, 0)
    for pair in cycle(pairs):
        if not orders[pair]:
            continue
        case = orders[pair][used[pair] % len(orders[pair])]
        used[pair] += 1
        shown = [(name, _made(results, case, name)) for name in pair]
        yield _shuffled("prefer", case, shown, rng, _prompt(results, case), reference(results, case, "inputs"))


def _caption(results: Results, variants: Sequence[str], rng: random.Random) -> Iterator[Question]:
    """One method's picture, or a control, under the target prompt."""
    answers = any(reference(results, case, "answers") for case in results.cases)
    names = [*variants, *([TRUTH] if answers else []), SOURCE]
    for name, case in _turns(results, names, rng):
        folder = {TRUTH: "answers", SOURCE: "inputs"}.get(name)
        path = reference(results, case, folder) if folder else _made(results, case, name)
        if path is not None:
            yield Question("caption", case, (name,), (path,), _prompt(results, case))


def _turns(results: Results, names: Sequence[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    orders = {name: _order(list(results.by_variant.get(name, results.cases)), rng) for name in names}
    place = 0
    while True:
        for name in rng.sample(list(names), len(names)):
            yield name, orders[name][place % len(orders[name])]
        place += 1


def _order(cases: list[str], rng: random.Random) -> list[str]:
    return rng.sample(cases, len(cases))


def _both(results: Results, case: str, pair: tuple[str, str]) -> bool:
    return all(case in results.by_variant[name] for name in pair)


def _made(results: Results, case: str, variant: str) -> Path:
    return results.pictures[case, variant] / results.by_variant[variant][case]["picture"]


def _prompt(results: Results, case: str) -> str:
    return next(lines[case]["prompt"] for lines in results.by_variant.values() if case in lines)


def _shuffled(
    task: str, case: str, shown: list[tuple[str, Path]], rng: random.Random, text: str = "", source: Path | None = None
) -> Question:
    rng.shuffle(shown)
    return Question(task, case, tuple(n for n, _ in shown), tuple(p for _, p in shown), text, source)


def page(questions: Sequence[Question], title: str, seconds: float, seed: int) -> tuple[str, dict[str, Any]]:
    """The page's text, and the key: what each question showed.

    Raises:
        OSError: a picture is missing or damaged.
    """
    stored: dict[str, str] = {}
    shown, key = [], {}
    for index, one in enumerate(questions):
        name = f"q{index:03d}"
        entry: dict[str, Any] = {"id": name, "task": one.task, "text": one.text}
        entry["pictures"] = [_stored(path, stored) for path in one.pictures]
        entry["source"] = _stored(one.source, stored) if one.source else None
        if one.practice:
            entry["solution"] = one.names.index("real")
        shown.append(entry)
        key[name] = {"task": one.task, "case": one.case, "names": list(one.names), "practice": one.practice}
    study = hashlib.sha256(json.dumps([key, sorted(stored), seed], sort_keys=True).encode()).hexdigest()[:16]
    data = {"study": study, "seconds": seconds, "questions": shown, "pictures": stored}
    # "<" must not end the script element, whatever a prompt says
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title), data=json.dumps(data).replace("<", "\\u003c")
    )
    return text, {"study": study, "seed": seed, "seconds": seconds, "questions": key}


def _stored(path: Path, stored: dict[str, str]) -> str:
    """A picture's id in the page; names and order tell nothing about its origin."""
    image = read_picture(path)
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    name = hashlib.sha256(image.tobytes()).hexdigest()[:12]
    if name not in stored:
        stream = io.BytesIO()
        image.save(stream, "WEBP", lossless=True)
        stored[name] = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return name
