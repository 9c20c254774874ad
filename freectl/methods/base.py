"""What a method is: a name, closed settings, and one function that runs it on an engine."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

import torch
from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from freectl.denoising import inverters
from freectl.denoising.inversion import Trajectory
from freectl.denoising.inverters import Level
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Lane, OnStep, Prompt, Step, of_one_length, sample
from freectl.errors import InputError
from freectl.methods.description import Description
from freectl.methods.inverter import check_inverter
from freectl.methods.local_edit import Keeping, changing, straight_levels
from freectl.methods.observer import NOBODY, Observer
from freectl.models.engine import Engine
from freectl.models.families.base import Family
from freectl.models.inverting import Inverter, Prior

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Condition:
    """A picture that gives all outputs of a run their structure; several are obeyed at once.

    Attributes:
        image: RGB; brought to the working size by the pipeline.
        source_prompt: what it shows, in words; used while inverting it, and where the concept's tokens are looked up.
        concept: word whose seed pictures make the bases, and whose tokens make an attention mask; or None.
        mask: picture, white where the structure holds; "attention"; or None for everywhere.
    """

    image: Image.Image
    source_prompt: str = ""
    concept: str | None = None
    mask: Image.Image | str | None = None


@dataclass
class Request:
    """One run, whatever the method; every list but `conditions` has one entry an output picture (B).

    Attributes:
        images: input pictures at the working size, RGB; empty where conditions are given.
        prompt: encoded target text with its unconditional half, batch B.
        texts: the target prompts themselves.
        source_prompts: what the inputs show, in words; may be empty strings.
        size: working (width, height) in pixels.
        concept: the word whose seed pictures make the semantic bases, or None.
        latents: noise to start from instead of the generators' (B, C, h, w).
        mask: picture of the working size, white where the structure applies; "attention" for the concept's
            cross-attention; or None for everywhere.
        appearance_image: picture of the working size whose appearance is taken, or None.
        conditions: pictures of the working size that each output follows; instead of `images`.
        kept: "L" masks of the working size, white where the input stays as it is; empty = everything may change.
    """

    images: list[Image.Image]
    prompt: Prompt
    texts: list[str]
    source_prompts: list[str]
    size: tuple[int, int]
    steps: int = 50
    guidance_scale: float = 7.5
    eta: float = 0.0
    generators: list[torch.Generator] = field(default_factory=list)
    concept: str | None = None
    latents: Tensor | None = None
    mask: Image.Image | str | None = None
    appearance_image: Image.Image | None = None
    on_step: OnStep | None = None
    conditions: list[Condition] = field(default_factory=list)
    kept: list[Image.Image] = field(default_factory=list)


@dataclass
class Outcome:
    """Final latents (B, C, h, w), scaled, and what the method recorded at each step."""

    latents: Tensor
    trace: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Method(Description, Generic[S]):
    """Base of all methods; a new one is a new file and a line in the registry.

    Attributes:
        observer: who is told of what goes on in runs.
    """

    observer: Observer = NOBODY

    def observed(self, observer: Observer) -> Self:
        """The same method, whose runs tell an observer."""
        told = copy(self)
        told.observer = observer
        return told

    def run(self, engine: Engine, request: Request, settings: S) -> Outcome:
        """Run the method with resolved settings; network calls happen inside the engine's cost counting."""
        raise TypeError(f"{type(self).__name__} does not implement run()")

    def check(self, settings: S, given: Collection[str]) -> None:
        """Refuse inputs that the method would ignore.

        Args:
            given: names of the optional inputs that were given.

        Raises:
            InputError: one of them is of no use to this method.
        """
        for name in given:
            if name not in self.inputs:
                option = "--condition" if name == "conditions" else f"--{name.replace('_', '-')}"
                raise InputError(option, f"given to {self.name}, which does not use it", "nothing, or another --method")

    def used(self, optional: Mapping[str, Any], keep_background: bool) -> list[str]:
        """Names of the optional inputs that are given, for `check`.

        Args:
            optional: name -> value; None = not given.
            keep_background: whether the background is kept, which uses the concept whatever the method.
        """
        names = [name for name, value in optional.items() if value is not None]
        return [name for name in names if not (name == "concept" and keep_background and name not in self.inputs)]

    def resolved(self, settings: S, family: Family, *, appearance_image: bool = False) -> S:
        """The settings with whatever depends on the model family and on the inputs filled in.

        Raises:
            InputError: a setting that has no meaning for the family.
        """
        check_inverter(settings, family)
        return settings

    def guidance_scale(self, settings: S, family: Family) -> float:
        """Classifier-free guidance where none is asked for."""
        return family.guidance_scale

    def row_forwards(self, steps: int, settings: S) -> str:
        """Cost formula with its value at `steps`: terms "name count" joined by " + ", as `cost.rows_in` reads.

        The terms are those of a first run with a source prompt, classifier-free guidance and cached bases; what changes
        without them stands in parentheses.
        """
        raise TypeError(f"{type(self).__name__} does not implement row_forwards()")


def progress_reporter(bar: Any, then: OnStep | None) -> Callable[[Step, dict[str, Lane]], bool | None]:
    """An `on_step` that advances a progress bar and then calls the user's own."""

    def report(step: Step, lanes: dict[str, Lane]) -> bool | None:
        bar.update()
        return then(step, lanes) if then is not None else None

    return report


def with_negative(prompt: Prompt, negative: Prompt | None) -> Prompt:
    """The conditional half of one prompt with the unconditional half of another, if that has one."""
    if negative is None or negative.uncond is None:
        return prompt
    return Prompt(prompt.cond, negative.uncond, {**negative.added, **{h: prompt.added[h] for h in prompt.added}})


def source_beside(engine: Engine, request: Request) -> Prompt:
    """The source prompts under the run's own negative prompt, which then cancels where both prompts are equal.

    Without an unconditional half where that equals the conditional one, so that guidance would change nothing.
    """
    source = engine.encode_prompt(request.source_prompts)
    both = with_negative(source, request.prompt)
    return source if both.uncond is None or _equal_halves(both) else both


def _equal_halves(prompt: Prompt) -> bool:
    halves = of_one_length([(prompt.half(half), prompt.added.get(half)) for half in ("cond", "uncond")])
    inputs = [[embeds, *dict(sorted((added or {}).items())).values()] for embeds, added in halves]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*inputs, strict=True))


def finer_grid(engine: Engine, steps: int, inversion_steps: int | None) -> Path:
    """The path of the inversion: with the grid of `inversion_steps` steps, or the sampling grid itself.

    Raises:
        InputError: the finer grid misses timesteps of the sampling grid.
    """
    grid = engine.path(steps)
    fine = engine.path(inversion_steps) if inversion_steps is not None else grid
    if not set(grid.times) <= set(fine.times):
        allowed = f"steps whose grid holds all timesteps of {steps} steps, such as 999, or none"
        raise InputError("--set inversion_steps", str(inversion_steps), allowed)
    return fine


def inverted(
    engine: Engine,
    request: Request,
    texts: Sequence[str],
    inversion_steps: int | None = None,
    prior: Prior | None = None,
    *,
    evaluate_at: Level = "lower",
    guidance_scale: float = 1.0,
    inverter: inverters.Inverter = "euler",
) -> Trajectory:
    """Stacked inversions of the request's pictures, each with its text, at the levels of the sampling grid.

    Equal pictures with equal texts are inverted once, others together.

    Args:
        inversion_steps: steps of a finer grid to invert on; None = the sampling grid.
        prior: regularises the inverted noise.
        evaluate_at, guidance_scale, inverter: as `Engine.invert` takes them.

    Raises:
        InputError: the finer grid misses timesteps of the sampling grid.
    """
    fine = finer_grid(engine, request.steps, inversion_steps)
    pairs = [(image.tobytes(), text) for image, text in zip(request.images, texts, strict=True)]
    images = dict(zip(pairs, request.images, strict=True))
    walker = Inverter(engine, fine, evaluate_at, guidance_scale, prior, inverter)
    once = walker.each([(image, text) for (_, text), image in images.items()])
    found = {pair: trajectory for pair, (trajectory, _) in zip(images, once, strict=True)}
    each = [found[pair] for pair in pairs]
    levels = {time: torch.cat([one.levels[time] for one in each]) for time in engine.timesteps(request.steps)}
    return Trajectory(torch.cat([one.clean for one in each]), levels)


def keeping(
    engine: Engine,
    request: Request,
    start: Tensor,
    timesteps: Sequence[float],
    inner: Controller,
    source: Trajectory | None,
) -> Controller:
    """The controller, kept from changing what the request keeps."""
    if source is None:
        source = straight_levels(engine.schedule, engine.encode_images(request.images), start, timesteps)
    mask = changing(request.kept, (start.shape[-2], start.shape[-1]), start.device)
    return Keeping(inner, mask, source)


def denoise(
    engine: Engine,
    request: Request,
    lanes: dict[str, Lane],
    timesteps: Sequence[float],
    controller: Controller | None = None,
    *,
    eta: float | None = None,
    source: Trajectory | None = None,
) -> Tensor:
    """Run the loop under the engine's progress bar; the latents of lane "edit". `eta` None is the request's.

    What the request keeps of its pictures is kept here, for all methods alike.

    Args:
        source: the input's latents at each of `timesteps`, where the method has them; None = noised ones.
    """
    if request.kept:
        controller = keeping(engine, request, lanes["edit"].latents, timesteps, controller or Controller(), source)
    with engine.progress(len(timesteps), "editing") as bar:
        sample(
            engine.denoiser,
            engine.path(request.steps),
            lanes,
            timesteps,
            controller,
            eta=request.eta if eta is None else eta,
            generators=request.generators,
            on_step=progress_reporter(bar, request.on_step),
        )
    return lanes["edit"].latents
