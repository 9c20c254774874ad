"""The table of packed transformer families that tests loop over: how each is made and called, here and in diffusers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ChromaImg2ImgPipeline, FluxImg2ImgPipeline
from flux_toy import chroma_pipeline, flux2_pipeline, flux_pipeline, klein_pipeline
from PIL import Image
from torch import nn
from torch.nn.functional import pixel_unshuffle

import freectl
from freectl import methods
from freectl.models import families
from freectl.models.families.packed import PackedFamily

SIZE = (96, 64)
STEPS = 4
LENGTH = 24
LAYERS = (1, 2, 3)
"""Of FLUX.2's language models at toy depth, in the proportion of the published ones."""


@dataclass(frozen=True)
class Kind:
    """A family.

    Attributes:
        build: diffusers' pipeline. ours: name of the class of ours.
        shape: of latents of `SIZE`. packed: whether diffusers takes noise as tokens.
        img2img: diffusers' class, if there is one.
        given: arguments of both calls. theirs: of diffusers' alone.
        extras: of either constructor beside the components.
    """

    build: Callable[..., Any]
    ours: str
    shape: tuple[int, int, int] = (4, 16, 24)
    packed: bool = True
    img2img: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)


NEGATIVE = {"guidance_scale": 4.0, "negative_prompt": "grey"}
FLUX2: dict[str, Any] = {"shape": (16, 8, 12), "packed": False, "theirs": {"text_encoder_out_layers": LAYERS}}
KLEIN = "FreeControlFlux2KleinPipeline"
KINDS = {
    "flux": Kind(flux_pipeline, "FreeControlFluxPipeline", img2img=FluxImg2ImgPipeline, given={"guidance_scale": 3.5}),
    "flux-schnell": Kind(
        partial(flux_pipeline, guidance=False),
        "FreeControlFluxPipeline",
        img2img=FluxImg2ImgPipeline,
        given={"guidance_scale": 0.0},
    ),
    "chroma": Kind(chroma_pipeline, "FreeControlChromaPipeline", img2img=ChromaImg2ImgPipeline, given=NEGATIVE),
    "flux2": Kind(flux2_pipeline, "FreeControlFlux2Pipeline", given={"guidance_scale": 4.0}, **FLUX2),
    "klein": Kind(klein_pipeline, KLEIN, given={"guidance_scale": 4.0}, extras={"is_distilled": False}, **FLUX2),
    "klein-distilled": Kind(
        partial(klein_pipeline, distilled=True),
        KLEIN,
        given={"guidance_scale": 1.0},
        extras={"is_distilled": True},
        **FLUX2,
    ),
}
INVERTED = ("flux", "chroma", "flux2", "klein")


@dataclass(frozen=True)
class Toy:
    """Both pipelines of a family, which share their networks."""

    name: str
    kind: Kind
    plain: Any
    ours: Any

    def noise(self, seed: int = 7, rows: int = 1) -> torch.Tensor:
        return torch.randn(rows, *self.kind.shape, generator=torch.Generator().manual_seed(seed))

    def as_theirs(self, latents: torch.Tensor) -> torch.Tensor:
        return pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2) if self.kind.packed else latents

    def plainly(self, pipe: Any = None, latents: torch.Tensor | None = None, **options: Any) -> Any:
        """What diffusers' pipeline gives."""
        given = {"num_inference_steps": STEPS, "max_sequence_length": LENGTH, "output_type": "np"}
        given |= {"width": SIZE[0], "height": SIZE[1], "prompt": "a cat", **self.kind.given, **self.kind.theirs}
        given |= {} if latents is None else {"latents": self.as_theirs(latents)}
        return (self.plain if pipe is None else pipe)(**given | options).images

    def run(self, prompt: Any = "a cat", image: Any = None, *, pipe: Any = None, **options: Any) -> Any:
        """What ours gives."""
        given = {"num_inference_steps": STEPS, "output_type": "latent", **self.kind.given} | options
        return (self.ours if pipe is None else pipe)(prompt, image, **given)

    def sdedit(self, prompt: Any = "a cat", image: Any = None, **options: Any) -> Any:
        given = {"output_type": "np", "strength": 1.0, "method": methods.get("sdedit")} | options
        return self.run(prompt, image or picture(), **given).images


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def made(folder: Path) -> dict[str, Toy]:
    toys = {}
    for name, kind in KINDS.items():
        plain = kind.build(folder / name)
        toys[name] = Toy(name, kind, plain, wrapped(kind, plain))
    return toys


def wrapped(kind: Kind, plain: Any) -> Any:
    ours = getattr(freectl, kind.ours)(**plain.components, max_sequence_length=LENGTH, **kind.extras)
    ours.set_progress_bar_config(disable=True)
    return ours


def of_small_pictures(side: int = 4) -> list[Any]:
    """All families; those of packed transformers were trained at `side` tokens, so that bases are small."""
    return [replace(one, side=side) if isinstance(one, PackedFamily) else one for one in families.FAMILIES]


@contextmanager
def calls(network: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """The arguments of a network's calls inside."""
    seen: list[dict[str, Any]] = []
    handle = network.register_forward_pre_hook(lambda _module, _args, given: seen.append(dict(given)), with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
