"""A results folder from somebody else: what does not fit is one line, and leads nowhere outside the folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from result_kit import about, line

from eval.bench.mini_files import load_mini
from eval.results.reading import read
from eval.results.store import Store
from freectl.errors import InputError

DEEP = "[" * 100_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two results."""
    bench, made = load_mini(), Store(tmp_path)
    with made.locked():
        made.begin(about(bench), "one")
        for case in bench.cases[:2]:
            made.append(line(case, "a", {"iou": 0.5}))
    return made


def edited(path: Path, value: dict[str, Any]) -> None:
    """Change entries of the file's first line; None takes one away."""
    first, *rest = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    entries = {key: one for key, one in (json.loads(first) | value).items() if one is not None}
    path.write_text("\n".join([json.dumps(entries), *rest, ""]))


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"scores": 3}, "scores"),
        ({"scores": {"iou": "0.5"}}, "scores.iou: no number"),
        ({"scores": {"iou": float("nan")}}, "scores.iou"),
        ({"cost": {}}, "cost.seconds"),
        ({"steps": None}, "steps: Field required"),
        ({"notes": "x"}, "notes"),
        ({"picture": "../../etc/passwd"}, "picture: leads out of the folder"),
        ({"picture": "/etc/passwd"}, "picture: leads out of the folder"),
        ({"case": "../x"}, "case: names no file of the folder"),
    ],
)
def test_lines_that_do_not_fit_are_named(store: Store, entry: dict[str, Any], named: str) -> None:
    edited(store.lines_path, entry)
    with pytest.raises(InputError, match=named):
        read([store.folder])


@pytest.mark.parametrize("entry", [{"layout": "x"}, {"digest": None}, {"environment": {}}, {"steps": "many"}])
def test_an_odd_run_is_named(store: Store, entry: dict[str, Any]) -> None:
    edited(store.about_path, entry)
    with pytest.raises(InputError, match=rf"run\.json': {next(iter(entry))}"):
        read([store.folder])


@pytest.mark.parametrize("text", ["{", "[]", DEEP, '{"variants": {"a": {}}}', '{"variants": {"a": {"count": "x"}}}'])
def test_odd_scores_of_sets_are_named(store: Store, text: str) -> None:
    store.write_text("sets.json", text)
    with pytest.raises(InputError, match=r"sets\.json'"):
        read([store.folder])


def test_nesting_without_end_is_damage(store: Store) -> None:
    whole = store.lines()
    with store.lines_path.open("a") as stream:
        stream.write(f'{DEEP}\n{{"case": [1], "variant": 2, "picture": 3, "scores": 4}}\n')
    assert store.lines() == whole
    store.about_path.write_text(DEEP)
    with pytest.raises(InputError, match="damaged"):
        read([store.folder])
