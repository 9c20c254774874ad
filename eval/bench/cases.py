"""A benchmark case, the same for all benchmarks: what a method is given, and what its result is measured against."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from freectl.errors import unknown
from freectl.mini.scene import Scene

Layout = Literal["mini", "control", "pie", "ti2i", "ctrl-x", "ctrl-x-pairs", "plain"]
Picture = Callable[[], Image.Image]


@dataclass(frozen=True)
class Control:
    """Spatial control in the embedded world: scenes that a condition shows, and those that the words ask for.

    Attributes:
        shown: whose outline the condition has. targets: with the words of the prompt, in the same poses.
    """

    shown: tuple[Scene, ...]
    targets: tuple[Scene, ...]


@dataclass(frozen=True)
class Case:
    """One edit, or one picture under a condition.

    Attributes:
        key: unique in its benchmark; letters, digits, "-", "_" and "." only, since it names files.
        kind: the edit type, by which results are broken down.
        source_prompt: what the input shows; every method is told it.
        prompt: what the result should show.
        picture: reads the input, RGB.
        original: reads the picture whose structure counts, where it is not the input (a condition's photograph).
        mask: reads the region that the edit may change, mode "L", white inside; None where it is not known. Of a
            condition: where the objects are that it shows.
        scenes: input and exact answer, where they are scenes of the embedded world.
        control: what is shown and asked for, where the picture is a condition.
        appearance: reads a picture whose looks the result should have, where there is one.
        concept: the word of the source prompt that names the object, where it is known.
        files: what `picture`, `original` and `mask` read.
    """

    key: str
    kind: str
    source_prompt: str
    prompt: str
    picture: Picture
    original: Picture | None = None
    mask: Picture | None = None
    scenes: tuple[Scene, Scene] | None = None
    control: Control | None = None
    appearance: Picture | None = None
    concept: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def is_condition(self) -> bool:
        """Whether the picture is a condition, which methods of spatial control follow as such."""
        return self.control is not None or self.original is not None

    def describe(self) -> dict[str, Any]:
        """What identifies the case, as plain values."""
        scenes = {} if self.scenes is None else {"scenes": [scene.to_dict() for scene in self.scenes]}
        if self.control is not None:
            scenes = {"scenes": [scene.to_dict() for scene in (*self.control.shown, *self.control.targets)]}
        return {
            "key": self.key,
            "kind": self.kind,
            "source_prompt": self.source_prompt,
            "prompt": self.prompt,
            **scenes,
        }


@dataclass(frozen=True)
class Bench:
    """Cases in a fixed order.

    Attributes:
        name: as it was asked for.
        layout: which scores it has: "mini" and "control" exact answers, "pie", "ti2i", "ctrl-x" and "ctrl-x-pairs"
            those of the papers, "plain" those that need a picture and a prompt.
        about: what a reader of the report should know.
        files: what all cases were read from, where answers depend on it.
    """

    name: str
    layout: Layout
    cases: tuple[Case, ...]
    about: str = ""
    files: tuple[Path, ...] = ()
    _by_key: dict[str, Case] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_key.update({case.key: case for case in self.cases})
        if len(self._by_key) != len(self.cases):
            raise ValueError(f"{self.name}: two cases share a key")

    def __getitem__(self, key: str) -> Case:
        return self._by_key[key]

    @property
    def is_control(self) -> bool:
        """Whether its pictures are conditions, for methods of spatial control."""
        return any(case.is_condition for case in self.cases)

    @property
    def is_paired(self) -> bool:
        """Whether each of its conditions comes with a picture of the looks; methods that take one are given it."""
        return paired(self.cases)

    @cached_property
    def digest(self) -> str:
        """sha256 over all cases and the contents of their files, in order: results of two digests do not mix."""
        text = json.dumps([self.layout, *(case.describe() for case in self.cases)], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for file in (*self.files, *(file for case in self.cases for file in case.files)):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def paired(cases: Sequence[Case]) -> bool:
    """Whether all are conditions with an appearance picture each."""
    return bool(cases) and all(case.is_condition and case.appearance is not None for case in cases)


def balanced(cases: Sequence[Case], count: int) -> list[Case]:
    """`count` cases in benchmark order, the same number of each kind as far as that divides; all if there are fewer.

    A kind's first cases are taken, so that a larger subset holds every smaller one.
    """
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    turns = [own[rank] for rank in range(max(map(len, by_kind.values()), default=0)) for own in by_kind.values()
             if rank < len(own)]  # fmt: skip
    chosen = {case.key for case in turns[:count]}
    return [case for case in cases if case.key in chosen]


def chosen_cases(bench: Bench, kinds: str | None, subset: int | None) -> list[Case]:
    """The cases of these edit types, and `subset` of them.

    Raises:
        InputError: a kind that the benchmark does not have.
    """
    cases = list(bench.cases)
    if kinds is not None:
        wanted = [kind.strip() for kind in kinds.split(",")]
        known = {case.kind for case in cases}
        if odd := [kind for kind in wanted if kind not in known]:
            raise unknown("--kinds", odd[0], known)
        cases = [case for case in cases if case.kind in wanted]
    return cases if subset is None else balanced(cases, subset)
