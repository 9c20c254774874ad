"""How a variant turns a case's input into a picture: one model, loaded once, for all diffusion methods."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image

from eval.bench.cases import Case
from eval.run.checked import Checked
from freectl.denoising.cost import Cost
from freectl.errors import InputError
from freectl.files import pictures
from freectl.files.cache import Cache, Content
from freectl.methods.base import Condition
from freectl.models.sizes import working_size
from freectl.pipelines import loading
from freectl.tasks.control import steered


@dataclass
class Made:
    """A result: the picture at the input's size, what it cost, and the settings as they were used."""

    image: Image.Image
    cost: dict[str, Any]
    settings: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class Runner(Protocol):
    """One variant."""

    def run(self, case: Case) -> Made:
        """Edit the case's input."""


class BasesOnly(Cache):
    """A cache that keeps semantic bases and nothing else: every edit pays for its own inversion and reference."""

    def get_or_build(self, kind: str, key: str, build: Callable[[], Content]) -> tuple[dict, dict, bool]:
        """As `Cache`, but anything that is not a basis is built."""
        return super().get_or_build(kind, key, build) if kind == "bases" else (*build(), False)


@dataclass(frozen=True)
class Model:
    """A loaded pipeline with what all variants share.

    Attributes:
        pipe: a FreeControlPipeline.
        steps: of the sampler. seed: of every picture's own generator.
        reuse: keep inversions and references on disk too; a picture's later edits then cost less.
    """

    pipe: Any
    steps: int
    seed: int
    reuse: bool = False

    def size(self, picture: Image.Image) -> tuple[int, int]:
        """Working size of a picture, as `freectl edit` chooses it."""
        return working_size(picture.size, self.pipe)


def load_model(name: str, steps: int, seed: int, *, device: str, dtype: str, reuse: bool = False) -> Model:
    """Load a model as `freectl edit` does.

    Raises:
        InputError: unknown model, device or dtype.
        FreectlError: it cannot be loaded.
    """
    found, _ = loading.resolve_device(device)
    pipe = loading.load_pipeline(
        loading.resolve_model(name), device=found, dtype=loading.resolve_dtype(dtype, found)[0]
    )
    pipe.set_progress_bar_config(disable=True)
    return Model(pipe, steps, seed, reuse)


class DiffusionRunner:
    """A registered method with its settings, on a shared model. All methods are told the source prompt."""

    def __init__(self, model: Model, checked: Checked) -> None:
        self.model, self.checked = model, checked

    def run(self, case: Case) -> Made:
        """Edit the case's input.

        Raises:
            InputError: a prompt is longer than the model's text encoder takes, or the like.
        """
        asked, model, cost = self.checked, self.model, Cost()
        picture = case.picture()
        fitted = pictures.fit(picture, model.size(picture))
        output = model.pipe.commanded(
            case.prompt,
            num_inference_steps=model.steps,
            guidance_scale=asked.guidance_scale,
            negative_prompt=asked.negative_prompt,
            generator=torch.Generator().manual_seed(model.seed),
            appearance_image=self._appearance(case, fitted),
            method=asked.method,
            settings=asked.settings,
            cache=Cache() if model.reuse else BasesOnly(),
            cost=cost,
            **self._given(case, fitted),
        )
        image = fitted.restore(output.images[0])
        return Made(image, output.cost, output.settings.model_dump(), list(output.warnings))

    def _given(self, case: Case, fitted: pictures.Fitted) -> dict[str, Any]:
        """The picture that is edited, and what is known of it."""
        return {
            "image": fitted.image,
            "source_prompt": case.source_prompt,
            "concept": self._concept(case),
            "mask": self._mask(case, fitted),
        }

    def _concept(self, case: Case) -> str | None:
        return case.concept if self.checked.concept == "source" else None

    def _appearance(self, case: Case, fitted: pictures.Fitted) -> Image.Image | None:
        if self.checked.appearance != "example" or case.appearance is None:
            return None
        return pictures.fit(case.appearance(), fitted.image.size).image

    def _mask(self, case: Case, fitted: pictures.Fitted) -> Image.Image | str | None:
        if self.checked.mask != "exact":
            return None if self.checked.mask == "none" else self.checked.mask
        from freectl.mini.scene import render_mask

        if case.control is not None and case.mask is not None:
            return fitted.fit_mask(case.mask())
        if case.scenes is None:
            raise InputError("--set mask", "exact, for a case without an exact mask", "none, attention")
        return fitted.fit_mask(render_mask(case.scenes[0], fitted.original_size[0]))


class ControlRunner(DiffusionRunner):
    """A method of `freectl control` on a shared model; the case's picture is its condition."""

    def _given(self, case: Case, fitted: pictures.Fitted) -> dict[str, Any]:
        condition = Condition(fitted.image, case.source_prompt, self._concept(case), self._mask(case, fitted))
        return steered(self.checked.method, [condition])
