"""What the tests of the command line share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEW = ("--set", "seeds=4", "--set", "components=4", "--set", "seed_steps=10", "--steps", "5")
SAME = {"seeds": 4, "components": 4, "seed_steps": 10, "steps": 5}
CONTRACT = {"output", "method", "model", "prompt", "seed", "steps", "settings", "cost", "warnings"}


@dataclass
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a failure puts on stderr."""
        assert self.out == ""
        assert self.err.startswith("freectl: ")
        assert self.err.count("\n") == 1, self.err
        return self.err


Cli = Callable[..., Ran]


def files(folder: Path = Path()) -> set[str]:
    return {path.name for path in folder.iterdir()}
