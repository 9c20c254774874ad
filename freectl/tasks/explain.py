"""Seeing inside a run: what its method compares, reads and expects at each step. The picture stays the same."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.errors import InputError
from freectl.files import pictures
from freectl.methods.observer import Observer
from freectl.models.engine import Engine
from freectl.models.sizes import working_size
from freectl.semantics.analysis import Site
from freectl.semantics.pictures import COLOURS
from freectl.semantics.reference import Reference
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks.control import ControlPlan
from freectl.tasks.plan import EditResult, Plan

EVERY, FEWEST = 10, 5
"""Every so many steps the estimate of the clean picture is kept; in short runs more often, so that there are a few."""


@dataclass(frozen=True)
class Compared:
    """A guidance picture and the picture that is made, at one step and site.

    Attributes:
        guidance: which of the guidance pictures, from 0 on. time: of the level.
        wanted, own: the first components of their coordinates, (tokens, 3 or fewer), normalised.
        mask: (tokens,) of 0 and 1, where they are compared; None = everywhere.
    """

    guidance: int
    time: float
    wanted: Tensor
    own: Tensor
    mask: Tensor | None

    @property
    def distance(self) -> float:
        """Mean squared difference of what is shown, inside the mask."""
        squares = (self.wanted - self.own).square().mean(-1)
        return float(squares.mean() if self.mask is None else squares[self.mask > 0.5].mean())


@dataclass
class Inside(Observer):
    """What one run tells, of its first picture, on the CPU.

    Attributes:
        site: the first site that is compared. seen: at each guided step, a guidance picture at a time.
        estimates: (step from 1 on, of how many, clean latents (1, C, h, w)).
        maps: lane -> mean attention over heads, layers and steps, (pixels, tokens).
    """

    site: str = ""
    seen: list[Compared] = field(default_factory=list)
    estimates: list[tuple[int, int, Tensor]] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)
    _references: list[Reference] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict)

    def compared(self, reference: Reference, site: Site, coordinates: Tensor) -> None:
        """Keep the first site's first components."""
        time, self.site = site[0], self.site or site[1]
        if site[1] != self.site:
            return
        if all(one is not reference for one in self._references):
            self._references.append(reference)
        index = next(i for i, one in enumerate(self._references) if one is reference)
        wanted, own = (x.detach()[0, :, :COLOURS].float().cpu() for x in (reference.coordinates[site], coordinates))
        mask = reference.masks.get(time)
        self.seen.append(Compared(index, time, wanted, own, None if mask is None else mask[0].float().cpu()))

    def attended(self, name: str, attention: Tensor) -> None:
        """Keep the mean."""
        now, count = attention.detach()[0].float().mean(0).cpu(), self._read.get(name, 0)
        before = self.maps.get(name, torch.zeros_like(now))
        self.maps[name], self._read[name] = before + (now - before) / (count + 1), count + 1

    def on_step(self, pipe: Any, index: int, time: float, tensors: dict[str, Any]) -> dict[str, Any]:
        """A step callback of the pipelines: keeps estimates of the clean picture."""
        count = pipe.num_timesteps
        stride = min(EVERY, max(1, count // FEWEST))
        if pipe.clean_latents is not None and (index % stride == 0 or index == count - 1):
            self.estimates.append((index + 1, count, pipe.clean_latents[:1].detach().cpu()))
        return {}


@dataclass(frozen=True)
class Explained:
    """A finished run and what was seen of it.

    Attributes:
        guidance: the guidance pictures at the working size, in the order of `Compared.guidance`.
        estimates: what `Inside` has, decoded. alignment: of source and target tokens (methods that align some).
    """

    result: EditResult
    inside: Inside
    guidance: list[Image.Image]
    estimates: list[tuple[int, int, Image.Image]]
    alignment: dict[str, Any] | None


def check(checked: Plan | ControlPlan) -> None:
    """Refuse a run that has nothing to show.

    Raises:
        InputError: its method runs no diffusion model.
    """
    if checked.source is None:
        found = f"--method {checked.method.name}, which runs no diffusion model and has no steps to show"
        raise InputError("--explain", found, "a method of `freectl methods` that runs on a diffusion model")


def run(
    checked: Plan | ControlPlan, *, cache: Any = True, progress: bool = False, on_step: Callable | None = None
) -> Explained:
    """Run a checked plan and watch it; the picture is the same, to the bit, as without.

    Args:
        cache, progress, on_step: as for `freectl.tasks.edit.run`.

    Raises:
        InputError: as `check`.
    """
    check(checked)
    inside = Inside()

    def step(*given: Any) -> dict[str, Any]:
        inside.on_step(*given)
        return on_step(*given) if on_step is not None else {}

    watched: Any = replace(checked, method=checked.method.observed(inside))
    control = isinstance(checked, ControlPlan)
    result = (controlling.run if control else editing.run)(watched, cache=cache, progress=progress, on_step=step)
    pipe, _ = editing.opened(checked.options, checked.source)  # type: ignore[arg-type]
    guidance = _conditions(checked, result) if control else [_input(checked, pipe)]
    estimates = [(step, count, decoded(pipe, latents)) for step, count, latents in inside.estimates]
    return Explained(result, inside, guidance, estimates, _alignment(checked, pipe))


def decoded(pipe: Any, latents: Tensor) -> Image.Image:
    """The first of scaled latents (B, C, h, w) as a picture."""
    engine = Engine(pipe)
    with torch.no_grad():
        pixels = engine.decode(latents[:1].to(engine.device, engine.dtype))
    return pipe.image_processor.postprocess(pixels, output_type="pil")[0]


def _input(checked: Any, pipe: Any) -> Image.Image:
    size = working_size(checked.picture.original_size, pipe)
    return pictures.fit(checked.picture.image, size, checked.picture.original_size).image


def _conditions(checked: Any, result: Any) -> list[Image.Image]:
    """One a concept of each condition, as the method takes them."""
    each = zip(checked.conditions, result.conditions, strict=True)
    return [picture for one, picture in each for _ in one.parts]


def _alignment(checked: Any, pipe: Any) -> dict[str, Any] | None:
    source = getattr(checked.options, "source_prompt", "")
    if not source or not isinstance(source, str) or not hasattr(checked.method, "alignment"):
        return None
    return checked.method.alignment(pipe.tokenizer, source, checked.options.prompt, checked.settings)
