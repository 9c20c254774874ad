"""Inversions of pictures, kept in the cache; several that are missing are made together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising import inverters
from freectl.denoising.inversion import Adjust, Trajectory, invert
from freectl.denoising.inverters import Level
from freectl.denoising.path import Path, time_of
from freectl.denoising.sampler import Denoiser, Prompt, stacked
from freectl.files.cache import content_key

TOGETHER = 8
"""Pictures that are inverted in one batch."""
Pair = tuple[Image.Image, str]
"""A picture and what it shows, in words."""


class Prior(Protocol):
    """What changes the outputs of an inversion; new for every picture."""

    def key(self) -> Any:
        """All that it depends on, for cache keys."""

    def adjustment(self) -> Adjust:
        """As `invert` takes it."""


Recording = Callable[[Sequence[int]], Denoiser]
"""Numbers of pictures that are inverted together -> the denoiser that inverts them, which may record beside."""


@dataclass(frozen=True)
class Inverter:
    """Inverts pictures; see `freectl.denoising.inversion.invert`.

    Attributes:
        engine: a `freectl.models.engine.Engine`.
        path: with the grid to invert on.
        guidance_scale: against an empty text; where the source prompt is one itself, there is nothing to guide.
        prior: regularises the noise that is found, of one picture at a time.
        inverter: how steps are taken.
    """

    engine: Any
    path: Path
    evaluate_at: Level = "lower"
    guidance_scale: float = 1.0
    prior: Prior | None = None
    inverter: inverters.Inverter = "euler"

    def each(self, pairs: Sequence[Pair], recording: Recording | None = None) -> list[tuple[Trajectory, str]]:
        """The inversion of each pair, and its cache key.

        Rows of a batch round differently from single ones. So what is made together has keys of its own, and a single
        picture never depends on what it was once inverted with.

        Args:
            pairs: of one size, each once.
            recording: not asked for inversions from the cache.
        """
        engine = self.engine
        keys = [self._key(image, source, together=len(pairs) > 1) for image, source in pairs]
        made: dict[int, dict[str, Tensor]] = {}
        if len(pairs) > 1:
            cache = engine.cache
            missing = [i for i, key in enumerate(keys) if cache is None or cache.get("inversion", key) is None]
            for numbers, prompt in self._batches(pairs, missing):
                made |= self._inverted(pairs, numbers, prompt, recording)

        def build(i: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
            if i not in made:
                made.update(self._inverted(pairs, [i], self._prompt(pairs[i][1]), recording))
            return made[i], {"prompt": pairs[i][1]}

        found = [engine.cached("inversion", key, lambda i=i: build(i)) for i, key in enumerate(keys)]
        return [(_trajectory(tensors, engine.device), key) for tensors, key in zip(found, keys, strict=True)]

    def _guided(self, source: str) -> bool:
        return self.guidance_scale != 1 and source != ""

    def _prompt(self, source: str) -> Prompt:
        return self.engine.encode_prompt([source], [""] if self._guided(source) else None)

    def _key(self, image: Image.Image, source: str, *, together: bool) -> str:
        return content_key(
            what="inversion",
            evaluate_at=self.evaluate_at,
            model=self.engine.model_key(),
            image=image.tobytes(),
            size=list(image.size),
            prompt=source,
            timesteps=list(self.path.times),
            **({} if self.prior is None else {"prior": self.prior.key()}),
            **({"guidance": self.guidance_scale} if self._guided(source) else {}),
            **({} if self.inverter == "euler" else {"inverter": self.inverter}),
            **({"together": True} if together else {}),
        )

    def _batches(self, pairs: Sequence[Pair], missing: Sequence[int]) -> Iterator[tuple[list[int], Prompt]]:
        """Numbers of pictures whose rows go together, and their prompts: of one length, all guided or none."""
        alike: dict[Any, list[tuple[int, Prompt]]] = {}
        for i in missing:
            prompt = self._prompt(pairs[i][1])
            alike.setdefault((prompt.cond.shape, prompt.uncond is None), []).append((i, prompt))
        size = TOGETHER if self.prior is None else 1
        for group in alike.values():
            for first in range(0, len(group), size):
                numbers, prompts = zip(*group[first : first + size], strict=True)
                yield list(numbers), stacked(prompts)

    def _inverted(
        self, pairs: Sequence[Pair], numbers: Sequence[int], prompt: Prompt, recording: Recording | None
    ) -> dict[int, dict[str, Tensor]]:
        """The tensors of each picture's cache entry."""
        engine = self.engine
        clean = torch.cat([engine.encode_images([pairs[i][0]]) for i in numbers])
        with engine.progress(len(self.path.times), "inverting") as bar:
            made = invert(
                engine.denoiser if recording is None else recording(numbers),
                self.path,
                clean,
                prompt,
                self.path.times,
                lambda _: bar.update(),
                evaluate_at=self.evaluate_at,
                guidance_scale=1.0 if prompt.uncond is None else self.guidance_scale,
                adjust=None if self.prior is None else self.prior.adjustment(),
                inverter=self.inverter,
            )
        every = {"clean": made.clean, **{str(time): x for time, x in made.levels.items()}}
        return {n: {name: x[i : i + 1] for name, x in every.items()} for i, n in enumerate(numbers)}


def _trajectory(tensors: dict[str, Tensor], device: torch.device) -> Trajectory:
    levels = {time_of(time): x.to(device) for time, x in tensors.items() if time != "clean"}
    return Trajectory(tensors["clean"].to(device), levels)
