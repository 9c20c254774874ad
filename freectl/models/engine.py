"""A pipeline's components as the methods use them: encode, invert, decode, with cache and cost record."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from freectl.denoising import inverters
from freectl.denoising.cost import Cost
from freectl.denoising.inversion import Trajectory
from freectl.denoising.inverters import Level
from freectl.denoising.path import Path
from freectl.denoising.sampler import Denoiser, Prompt
from freectl.denoising.schedules import path_of
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.models import families, fingerprint
from freectl.models.finite import FiniteCall, cause_of_step, check_finite
from freectl.models.inverting import Inverter, Prior
from freectl.models.networks import unwrapped
from freectl.models.text_extras import MicroConditioning
from freectl.models.vae_codec import VaeCodec, tile_of

Build = Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]


class Engine:
    """Wraps a diffusers pipeline for one or many runs; its components are read now.

    Args:
        pipe: the pipeline.
        cache: where inversions, bases and references are kept; None keeps nothing.
        cost: the record that this run writes to.
        cross_attention_kwargs: for the attention processors, as in diffusers.
        micro: sizes that some families are told in place of the working size.
        long_prompts: read texts in pieces that are longer than the text encoder reads.

    Attributes:
        size: working (width, height) in pixels, which some families are told; the model's own at first.
        schedule: the path of the pipeline's scheduler, without a grid.
        halves: whether guidance is by a row of the negative prompt; else there is none.
        warnings: what a user should know of the run.

    Raises:
        InputError: the network is of no family that is known or of one whose texts have no pieces, or the scheduler
            has no path.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        cache: Cache | None = None,
        cost: Cost | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        micro: MicroConditioning | None = None,
        long_prompts: bool = False,
    ) -> None:
        self.pipe, self.cache, self.cost = pipe, cache, cost or Cost()
        self.network, self.vae = families.network_of(pipe), pipe.vae
        self.family = families.of_pipe(pipe)
        self.schedule = path_of(pipe.scheduler)
        self._call = FiniteCall(self.family.call, self.schedule)
        own = self.family
        told = float if own.guidance == "embedded" else None
        kept = (own.read, own.rescaled, own.parts, told)
        self.denoiser = Denoiser(self.network, self._call, cross_attention_kwargs, *kept)
        self.halves = own.guidance == "free"
        self.device, self.dtype = pipe._execution_device, self.network.dtype
        self.text = self.family.text(pipe, (cross_attention_kwargs or {}).get("scale"), self.dtype)
        if long_prompts:
            self.family.check_long_prompts()
            self.text.long = True
        self.latent_dtype = torch.float32 if self.family.wide_latents and self.dtype.itemsize < 4 else self.dtype
        self.codec = VaeCodec(pipe, self.device, self.latent_dtype, upcast=self.family.upcast_vae)
        self.micro = micro or MicroConditioning()
        self._kwargs = cross_attention_kwargs
        self._asked: set[str] = set()
        self._tokens: int | None = None
        self._latents: dict[bytes, Tensor] = {}
        self.warnings: list[str] = []
        self.size = (self.base_size, self.base_size)

    def guide(self, scale: float, true_scale: float = 1.0) -> float:
        """Say how the run is guided.

        Args:
            scale: as the family has it.
            true_scale: of a row of the negative prompt where the family's own guidance has none; 1 = no such row.

        Returns:
            The scale of the run's lanes.

        Raises:
            InputError: a scale above 1 for a network that takes none.
        """
        family = self.family
        if family.guidance == "free":
            return scale
        if family.guidance == "none" and scale > 1:
            found = f"{scale:g} on a {family.name} model, whose few steps were distilled without guidance"
            raise InputError("--guidance-scale", found, "1, or none")
        if true_scale <= 1:
            return scale
        self.halves = True
        if family.guidance == "embedded":
            # an inversion, which no row guides, is told of no guidance either
            self.denoiser.told = lambda lane: 1.0 if lane == 1 else scale
        return true_scale

    @property
    def working_multiple(self) -> int:
        """Width and height must be multiples of this many pixels.

        The VAE's factor times a token's cells; a UNet takes any size, since its decoder is resized to the skip
        connections.
        """
        return max(8, self.codec.factor * self.family.patch(self.network))

    def check_size(self, size: tuple[int, int]) -> None:
        """Check a (width, height) in pixels.

        Raises:
            InputError: a side is longer than the network has places for.
        """
        cells = self.family.largest(self.network)
        for name, side in zip(("width", "height"), size, strict=True):
            if cells is not None and side > cells * self.codec.factor:
                allowed = f"up to {cells * self.codec.factor}, which the model has places for"
                raise InputError(name, f"{side} px", allowed)

    @property
    def base_size(self) -> int:
        """Side in pixels the model was trained at; the longer one of two."""
        return max(self.family.latent_shape(self.network)[1:]) * self.codec.factor

    def path(self, steps: int, *, size: tuple[int, int] | None = None) -> Path:
        """The schedule with a sampling grid of that many steps.

        Args:
            size: (width, height) in pixels of other pictures than the run's; some families' grids depend on it.

        Raises:
            InputError: the schedule has no such grid.
        """
        width, height = (side // self.codec.factor for side in size or self.size)
        return self.schedule.on(
            steps, **self.family.grid(self.schedule.scheduler, self.network, (height, width), steps)
        )

    def timesteps(self, steps: int, *, size: tuple[int, int] | None = None) -> list[float]:
        """The times of that grid, descending."""
        return list(self.path(steps, size=size).times)

    def encode_prompt(
        self, texts: Sequence[str], negative: Sequence[str] | None = None, *, size: tuple[int, int] | None = None
    ) -> Prompt:
        """Encode texts; with `negative` (one each) also the unconditional half, where guidance has one.

        Args:
            size: (width, height) in pixels of other pictures than the run's; some families are told it.
        """
        negative = negative if self.halves else None
        if size is not None:
            return self.text.at_once().encode(texts, negative, size[::-1], MicroConditioning())
        prompt = self.text.encode(texts, negative, self.size[::-1], self.micro)
        if self._tokens is None:
            return prompt
        uncond = None if prompt.uncond is None else self.text.lengthened(prompt.uncond, self._tokens)
        return replace(prompt, cond=self.text.lengthened(prompt.cond, self._tokens), uncond=uncond)

    def of_one_length(self, cond: Tensor, uncond: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Given embeddings (B, n, C) at one length, which all texts of the run then have: rows share a forward."""
        lengths = [one.shape[1] for one in (cond, uncond) if one is not None]
        tokens = max(self.text.embedded, *lengths)
        if tokens != self.text.embedded:
            self._tokens = tokens
        return self.text.lengthened(cond, tokens), None if uncond is None else self.text.lengthened(uncond, tokens)

    def token_positions(self, text: str, words: str, option: str = "--concept") -> list[int]:
        """Positions of the tokens of `words` in the encoded text; a learnt word of several vectors has as many.

        Args:
            option: that names them.

        Raises:
            InputError: the words are not in the text.
        """
        return self.text.positions(text, words, option)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of one size to scaled latents (B, C, h, w): the posterior's mode, so that inversion repeats."""
        if not self._latents:
            return self.codec.encode(images)
        known = [self._latents.get(image.tobytes()) for image in images]
        return torch.cat([self.codec.encode([i]) if x is None else x for i, x in zip(images, known, strict=True)])

    def pictures_of(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of scaled latents (B, C, h, w); to encode one of them gives its latents again."""
        latents = latents.to(self.device, self.latent_dtype)
        images = self.pipe.image_processor.postprocess(self.decode(latents), output_type="pil")
        self._latents |= {image.tobytes(): latents[i : i + 1].clone() for i, image in enumerate(images)}
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures (B, 3, H, W), -1 to 1."""
        return self.codec.decode(latents)

    def check_result(self, latents: Tensor) -> None:
        """End a run whose final latents are no picture.

        Raises:
            FreectlError: they are not finite.
        """
        self._call.check()
        check_finite(latents, "latents after the last step", cause_of_step(self.schedule))

    def noise(self, size: tuple[int, int], generators: Sequence[torch.Generator]) -> Tensor:
        """Initial noise, one CPU generator an image."""
        width, height = (side // self.codec.factor for side in size)
        shape = (len(generators), self.family.latent_shape(self.network)[0], height, width)
        return randn_tensor(shape, generator=list(generators), device=self.device, dtype=self.latent_dtype)

    def model_key(self) -> dict[str, Any]:
        """Everything of the model that an inversion depends on."""
        parts = [self.network, unwrapped(self.vae), *self.text.encoders]
        config = {k: v for k, v in self.schedule.scheduler.config.items() if not k.startswith("_")}
        return {
            "weights": fingerprint.combined(parts),
            "scheduler": repr(sorted(config.items())),
            "dtype": str(self.dtype),
            "device": self.device.type,
            "attention_kwargs": repr(self._kwargs),
            "words": repr(self.text.learnt_words),
            "conditioning": self.text.key(self.micro),
            **({} if self._tokens is None else {"tokens": self._tokens}),
            **({} if self.text.pieces == 1 else {"pieces": self.text.pieces}),
            **({"tiles": tile_of(self.vae)} if getattr(self.vae, "use_tiling", False) else {}),
            **({} if not self._latents else {"latents": [x.float().cpu().tolist() for x in self._latents.values()]}),
        }

    def invert(
        self,
        image: Image.Image,
        source_prompt: str,
        path: Path,
        *,
        evaluate_at: Level = "lower",
        guidance_scale: float = 1.0,
        prior: Prior | None = None,
        inverter: inverters.Inverter = "euler",
    ) -> tuple[Trajectory, str]:
        """Inversion of one picture, from the cache if it was made before, and its cache key; see `Inverter`."""
        return Inverter(self, path, evaluate_at, guidance_scale, prior, inverter).each([(image, source_prompt)])[0]

    def cached(self, kind: str, key: str, build: Build) -> dict[str, Tensor]:
        """Tensors of a cache entry, built if missing; the cost record says which."""
        return self.cached_with_metadata(kind, key, build)[0]

    def cached_with_metadata(self, kind: str, key: str, build: Build) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and metadata of a cache entry, built if missing."""

        def checked() -> tuple[dict[str, Tensor], dict[str, Any]]:
            made = build()
            self._call.check()
            for name, tensor in made[0].items():
                check_finite(tensor, f"{kind}, {name}", cause_of_step(self.schedule))
            return made

        if self.cache is None:
            (tensors, metadata), hit = checked(), False
        else:
            tensors, metadata, hit = self.cache.get_or_build(kind, key, checked)
        if kind in self.cost.cached:
            # Several pictures in one run: "cached" means that all of them were.
            self.cost.cached[kind] = hit and (self.cost.cached[kind] or kind not in self._asked)
            self._asked.add(kind)
        return tensors, metadata

    def progress(self, total: int, label: str) -> Any:
        """The pipeline's own progress bar, labelled."""
        self._call.doing = label
        bar = self.pipe.progress_bar(total=total)
        bar.set_description(label)
        return bar
