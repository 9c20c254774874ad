"""The fixed captions on which the embedded model is judged: `prompts/mini_captions.jsonl`.

`python -m freectl.mini.captions` writes the file anew; it is a function of the domain alone.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from freectl.files.data import prompts_file
from freectl.mini.domain import caption
from freectl.mini.scene import random_scene

FILE = "mini_captions.jsonl"
SEEN, HELD_OUT = 300, 60


@dataclass(frozen=True)
class Wanted:
    """What a sample should show; `held_out` where the pair of object and style is kept out of training."""

    object: str
    style: str
    background: str
    held_out: bool

    @property
    def caption(self) -> str:
        """The full caption."""
        return caption(self.style, self.object, self.background)


def drawn() -> Iterator[Wanted]:
    """The captions as the domain gives them, those of held-out pairs last."""
    for held_out, count in ((False, SEEN), (True, HELD_OUT)):
        rng = random.Random(f"captions/{held_out}")
        for _ in range(count):
            scene = random_scene(rng, held_out=held_out)
            yield Wanted(scene.object, scene.style, scene.background, held_out)


def to_lines(wanted: Iterator[Wanted]) -> str:
    """JSON lines."""
    return "".join(json.dumps({"caption": one.caption, **vars(one)}) + "\n" for one in wanted)


def fixed_captions() -> list[Wanted]:
    """The captions of the file."""
    lines = map(json.loads, prompts_file(FILE).read_text(encoding="utf-8").splitlines())
    return [Wanted(line["object"], line["style"], line["background"], line["held_out"]) for line in lines]


if __name__ == "__main__":
    prompts_file(FILE).write_text(to_lines(drawn()), encoding="utf-8")
