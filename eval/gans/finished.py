"""A trained run with what it is tested on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass
class Finished:
    """A trained run.

    Attributes:
        folder: of the run. data: what it was trained on. scenes: folder of the data's scenes. limit: pictures at most.
    """

    folder: Path
    data: Path
    scenes: Path
    limit: int

    @cached_property
    def weights(self) -> Any:
        """Its generators."""
        from gan_baselines.weights import load_weights

        return load_weights(self.folder / "weights")

    @property
    def layout(self) -> Any:
        """Of the folders that its model learns from."""
        return self.weights.model.layout

    def test(self, side: str) -> list[Path]:
        """Files of a side of the test, the first by name."""
        from gan_baselines.data.folders import find_sources

        return list(find_sources(self.data, self.layout, "test")[side].files[: self.limit])
