"""A tour of what there is, on the embedded model: edit, keep, control, compare, see inside, evaluate."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from freectl.files import record as records
from freectl.files.pictures import Labelled
from freectl.mini import MODEL_DIR
from freectl.mini.domain import ARTWORK, BACKGROUNDS, HELD_OUT, OBJECTS
from freectl.mini.judge import HEADS, judge_pictures, load_judge, mask_iou
from freectl.mini.scene import Scene, random_scene, render, render_mask
from freectl.tasks import compare as comparing
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks import explain as explaining
from freectl.tasks.command import command
from freectl.tasks.explain_sheet import sheet
from freectl.tasks.options import ControlOptions, EditOptions

FOX = Scene("fox", "fluent", "orange", "fluent", scale=0.85)
SKETCH = FOX.with_words(style="sketch")
METHODS = ("freecontrol", "pnp", "sdedit")
KINDS: tuple[tuple[str, ...], ...] = (
    ("object",),
    ("style",),
    ("background",),
    ("object", "style"),
    ("object", "background"),
    ("object", "style", "background"),
)
"""Words that the six cases change."""
NONE = "-"


@dataclass(frozen=True)
class Stop:
    """One thing that is shown.

    Attributes:
        commands: what one types for it. cells: its pictures. table: its header and rows. found: what came out.
        inside: the sheet of the run's inside.
    """

    title: str
    about: str
    commands: list[str]
    cells: Labelled = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    inside: Image.Image | None = None


@dataclass(frozen=True)
class Case:
    """A scene, and the scene that the edit asks for: the same pose with other words."""

    before: Scene
    after: Scene
    changed: tuple[str, ...]


class Tour:
    """Runs the stops, one after the other, and keeps their pictures in a folder.

    Args:
        folder: is there. steps: of every run.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.fox = render(FOX)
        self.put("fox.png", self.fox)

    def put(self, name: str, image: Image.Image, record: dict[str, Any] | None = None) -> Path:
        """Write a picture, with its record if it has one."""
        path = self.folder / name
        return records.save_image(image, path, None if record is None else {"output": str(path), **record})

    def stops(self) -> Iterator[Callable[[], Stop]]:
        """What is run for each stop, in order."""
        yield from (self.edited, self.kept, self.controlled, self.compared, self.evaluated)

    def edited(self) -> Stop:
        """An edit, seen from inside."""
        options = self._options("a noto cat on a blue background")
        seen = explaining.run(editing.plan(self._path("fox.png"), options, {}))
        self.put("cat.png", seen.result.image, seen.result.record)
        return Stop(
            "Edit",
            "The prompt says what the result shows. The structure of the fox guides the cat, step by step.",
            [f"{self._line(options)} --explain inside"],
            [("input", self.fox), (options.prompt, seen.result.image)],
            found=[_cost(seen.result)],
            inside=sheet(seen),
        )

    def kept(self) -> Stop:
        """An edit that leaves what a mask names as it is."""
        mask = render_mask(FOX).point(lambda inside: 255 - inside)
        path = self.put("background.png", mask.convert("RGB"))
        options = self._options("a fluent tiger on an orange background", keep=str(path))
        result = editing.run(editing.plan(self._path("fox.png"), options, {}))
        self.put("tiger.png", result.image, result.record)
        return Stop(
            "Keep",
            "White of the mask stays, pixel for pixel.",
            [self._line(options)],
            [("input", self.fox), ("kept", mask), (options.prompt, result.image)],
            found=[_cost(result)],
        )

    def controlled(self) -> Stop:
        """A picture made of words under a sketch."""
        sketch = render(SKETCH)
        path = self.put("sketch.png", sketch)
        options = ControlOptions(
            condition=(str(path),), prompt="a fluent fox on a cyan background", source_prompt=SKETCH.caption,
            steps=self.steps,
        )  # fmt: skip
        result = controlling.run(controlling.plan(list(options.condition), options, {}))
        self.put("controlled.png", result.image, result.record)
        return Stop(
            "Control",
            "A sketch gives the structure, words give the rest. No network was trained for sketches.",
            [command(options, {})],
            [("condition", sketch), (options.prompt, result.image)],
            found=[_cost(result)],
        )

    def compared(self) -> Stop:
        """Several methods on one picture."""
        options = self._options("a noto fox on an orange background", method=",".join(METHODS))
        planned = comparing.plans(self._path("fox.png"), METHODS, options, {})
        entries = comparing.run(planned)
        for one in entries:
            if one.result is not None:
                self.put(f"noto_{one.method}.png", one.result.image, one.record)
        return Stop(
            "Compare",
            "The same picture, words, model and seed; rows are latents through the network, which time goes by.",
            [f"{self._line(options)} --compare"],
            comparing.cells(entries, self.fox),
        )

    def evaluated(self) -> Stop:
        """Six edits with exact answers, judged."""
        made = [self._case(index, one) for index, one in enumerate(cases())]
        rows = judged(list(cases()), [result.image for result in made])
        reached = sum(row[2] == "yes" for row in rows)
        overlap = sum(float(row[4]) for row in rows) / len(rows)
        cells = [(f"{i + 1}: {case.after.caption}", one.image) for i, (case, one) in
                 enumerate(zip(cases(), made, strict=True))]  # fmt: skip
        return Stop(
            "Evaluate",
            "Six edits of drawn scenes. A classifier that no method has seen says what it sees; the outline is compared"
            " with that of the exact answer.",
            ["python -m eval.run --bench mini --methods freecontrol --subset 6 --out runs/six"],
            cells,
            [["changed", "asked for", "reached", "seen", "outline IoU"], *rows],
            [f"{reached} of {len(rows)} reached, mean outline IoU {overlap:.2f}"],
        )

    def _case(self, index: int, case: Case) -> Any:
        path = self.put(f"case{index + 1}.png", render(case.before))
        options = self._options(case.after.caption, source_prompt=case.before.caption)
        result = editing.run(editing.plan(str(path), options, {}))
        self.put(f"case{index + 1}_edited.png", result.image, result.record)
        return result

    def _options(self, prompt: str, **more: Any) -> EditOptions:
        return EditOptions(prompt=prompt, steps=self.steps, **({"source_prompt": FOX.caption} | more))

    def _line(self, options: EditOptions) -> str:
        return command(options, {}, self._path("fox.png"))

    def _path(self, name: str) -> str:
        return str(self.folder / name)


def cases() -> list[Case]:
    """One case for each of `KINDS`; always the same, no answer of a pair that the model has never seen."""
    found = []
    for kind in KINDS:
        rng = random.Random(f"tour/{kind}")
        before = random_scene(rng, styles=ARTWORK, held_out=False)
        after = before
        while any(getattr(after, name) == getattr(before, name) for name in kind) or (
            (after.object, after.style) in HELD_OUT
        ):
            words = {"object": tuple(OBJECTS), "style": ARTWORK, "background": tuple(BACKGROUNDS)}
            after = before.with_words(**{name: rng.choice(words[name]) for name in kind})
        found.append(Case(before, after, kind))
    return found


def judged(asked: Sequence[Case], results: Sequence[Image.Image]) -> list[list[str]]:
    """For each case: what changed, what was asked for, whether it was reached, what is seen instead, outline IoU."""
    judge = load_judge(MODEL_DIR / "judge")
    rows = []
    for case, verdict in zip(asked, judge_pictures(judge, results), strict=True):
        missed = {head: verdict.labels[head] for head in HEADS if verdict.labels[head] != getattr(case.after, head)}
        overlap = mask_iou(verdict.mask, render_mask(case.after, judge.size))
        seen = ", ".join(f"{head} {label}" for head, label in missed.items()) or NONE
        rows.append([" and ".join(case.changed), case.after.caption, "no" if missed else "yes", seen, f"{overlap:.3f}"])
    return rows


def _cost(result: Any) -> str:
    cost = result.cost
    return f"{cost['row_forwards']:g} row forwards, {cost['row_backwards']} gradients, {cost['seconds']['total']:.1f} s"
