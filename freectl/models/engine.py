"""A pipeline's components as the methods use them: encode, invert, analyse, decode, with cache and cost record."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from freectl.denoising import attention_maps
from freectl.denoising.cost import Cost
from freectl.denoising.inversion import Trajectory, invert
from freectl.denoising.noise_prior import NoisePrior
from freectl.denoising.sampler import Denoiser, Lane, Prompt
from freectl.denoising.taps import cross_attention_sites
from freectl.errors import InputError
from freectl.files.cache import Cache, content_key
from freectl.models import families, fingerprint
from freectl.models.conditioning import MicroConditioning, TextConditioner
from freectl.models.vae_codec import VaeCodec
from freectl.semantics import analysis
from freectl.semantics.bases import SemanticBases

SEED_BATCH = 10
Build = Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]


class Engine:
    """Wraps a Stable Diffusion or SDXL pipeline for one or many runs.

    Args:
        pipe: a diffusers pipeline with a DDIM scheduler.
        cache: where inversions, bases and references are kept; None keeps nothing.
        cost: the record that this run writes to.
        micro: sizes that SDXL is told in place of the working size.

    Attributes:
        size: working (width, height) in pixels, which SDXL is told with each prompt; the model's own at first.

    Raises:
        InputError: the UNet is of no family that is known.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        cache: Cache | None = None,
        cost: Cost | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        micro: MicroConditioning | None = None,
    ) -> None:
        self.pipe, self.cache, self.cost = pipe, cache, cost or Cost()
        self.unet, self.vae, self.scheduler = pipe.unet, pipe.vae, pipe.scheduler
        self.family = families.of(pipe.unet)
        self.denoiser = Denoiser(pipe.unet, cross_attention_kwargs)
        self.device, self.dtype = pipe._execution_device, pipe.unet.dtype
        self.text = TextConditioner(pipe, (cross_attention_kwargs or {}).get("scale"))
        self.codec = VaeCodec(pipe, self.device, self.dtype, upcast=self.text.pooled)
        self.micro = micro or MicroConditioning()
        self._kwargs = cross_attention_kwargs
        self._asked: set[str] = set()
        self.size = (self.base_size, self.base_size)

    @property
    def working_multiple(self) -> int:
        """Width and height must be multiples of this many pixels.

        The VAE's factor; the UNet takes any size, since its decoder is resized to the skip connections.
        """
        return max(8, self.codec.factor)

    @property
    def base_size(self) -> int:
        """Side in pixels the model was trained at; the longer one of two."""
        sample = self.unet.config.sample_size
        return (int(sample) if isinstance(sample, int) else max(sample)) * self.codec.factor

    def timesteps(self, steps: int) -> list[int]:
        """Set the scheduler's grid; descending.

        Raises:
            InputError: more steps than the schedule has.
        """
        total = self.scheduler.config.num_train_timesteps
        if not 1 <= steps <= total:
            raise InputError("--steps", str(steps), f"1 to {total}, the length of the model's schedule")
        self.scheduler.set_timesteps(steps, device="cpu")
        timesteps = [int(t) for t in self.scheduler.timesteps]
        if max(timesteps) >= total:  # an offset moves the full schedule past its end
            raise InputError("--steps", str(steps), f"1 to {total - 1}, the length of the model's schedule")
        return timesteps

    def encode_prompt(
        self, texts: Sequence[str], negative: Sequence[str] | None = None, *, size: tuple[int, int] | None = None
    ) -> Prompt:
        """Encode texts; with `negative` (one each) also the unconditional half.

        Args:
            size: (width, height) in pixels of other pictures than the run's; SDXL is told it.
        """
        if size is not None:
            return self.text.encode(texts, negative, size[::-1], MicroConditioning())
        return self.text.encode(texts, negative, self.size[::-1], self.micro)

    def token_positions(self, text: str, words: str) -> list[int]:
        """Positions of the tokens of `words` in the encoded text; a learnt word of several vectors has as many.

        Raises:
            InputError: the words are not in the text.
        """
        tokenizer = self.pipe.tokenizer
        text, words = (self.pipe.maybe_convert_prompt(one, tokenizer) for one in (text, words))
        return attention_maps.token_positions(tokenizer, text, words)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of one size to scaled latents (B, C, h, w): the posterior's mode, so that inversion repeats."""
        return self.codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures (B, 3, H, W), -1 to 1."""
        return self.codec.decode(latents)

    def noise(self, size: tuple[int, int], generators: Sequence[torch.Generator]) -> Tensor:
        """Initial noise, one CPU generator an image."""
        width, height = (side // self.codec.factor for side in size)
        shape = (len(generators), self.unet.config.in_channels, height, width)
        sigma = self.scheduler.init_noise_sigma
        return randn_tensor(shape, generator=list(generators), device=self.device, dtype=self.dtype) * sigma

    def model_key(self) -> dict[str, Any]:
        """Everything of the model that an inversion depends on."""
        parts = [self.pipe.unet, self.pipe.vae, *self.text.encoders]
        config = {k: v for k, v in self.scheduler.config.items() if not k.startswith("_")}
        return {
            "weights": fingerprint.combined(parts),
            "scheduler": repr(sorted(config.items())),
            "dtype": str(self.dtype),
            "device": self.device.type,
            "attention_kwargs": repr(self._kwargs),
            "words": repr(self.text.learnt_words),
            "conditioning": repr((self.micro, self.text.zeroed)) if self.text.pooled else "",
        }

    def invert(
        self,
        image: Image.Image,
        source_prompt: str,
        timesteps: Sequence[int],
        *,
        evaluate_at: Literal["lower", "upper"] = "lower",
        prior: NoisePrior | None = None,
    ) -> tuple[Trajectory, str]:
        """DDIM inversion of one picture, from the cache if it was made before, and its cache key; see `invert`.

        Args:
            prior: regularises the noise that is found.
        """
        key = content_key(
            what="inversion",
            evaluate_at=evaluate_at,
            model=self.model_key(),
            image=image.tobytes(),
            size=list(image.size),
            prompt=source_prompt,
            timesteps=list(timesteps),
            **({} if prior is None else {"prior": prior.key()}),
        )

        def build() -> tuple[dict[str, Tensor], dict]:
            clean = self.encode_images([image])
            with self.progress(len(timesteps), "inverting") as bar:
                made = invert(
                    self.denoiser,
                    self.scheduler,
                    clean,
                    self.encode_prompt([source_prompt]),
                    timesteps,
                    lambda _: bar.update(),
                    evaluate_at=evaluate_at,
                    adjust=None if prior is None else prior.adjustment(self.scheduler.config.prediction_type),
                )
            return {"clean": made.clean, **{str(t): x for t, x in made.levels.items()}}, {"prompt": source_prompt}

        tensors = self.cached("inversion", key, build)
        clean = tensors.pop("clean").to(self.device)
        return Trajectory(clean, {int(t): x.to(self.device) for t, x in tensors.items()}), key

    def reference(
        self,
        trajectory: Trajectory,
        trajectory_key: str,
        source_prompt: str,
        bases: SemanticBases,
        guided: Sequence[int],
        sites: Sequence[str],
        normalize: analysis.Normalize,
        concept: str | None = None,
    ) -> analysis.Reference:
        """Semantic coordinates of an inverted picture at the guided timesteps, cached.

        With a `concept`, a word of the source prompt, also its cross-attention masks, from the same forwards.
        """
        block = self.family.structure_block
        pairs = cross_attention_sites(self.unet, block) if concept is not None else []
        positions = self.token_positions(source_prompt, concept) if concept is not None else []
        key = content_key(
            what="reference",
            trajectory=trajectory_key,
            bases=content_key(tensors=bases.tensors()),
            guided=list(guided),
            sites=list(sites),
            normalize=normalize,
            mask_tokens=positions,
        )

        def build() -> tuple[dict[str, Tensor], dict]:
            prompt = self.encode_prompt([source_prompt])
            tapped = [*sites, *(name for pair in pairs for name in pair)]
            features = analysis.features_at(self.denoiser, trajectory, prompt, guided, tapped)
            keys = {(t, site): value for (t, site), value in features.items() if site in sites}
            made = analysis.reference_coordinates(keys, bases, normalize)
            if pairs:
                by_time = {t: {site: features[t, site] for site in tapped} for t in guided}
                maps = {t: attention_maps.cross_attention_maps(self.unet, by_time[t], pairs, positions) for t in guided}
                made.masks.update(attention_maps.running_masks(maps))
            return made.to_tensors(), {}

        tensors = self.cached("reference", key, build)
        return analysis.Reference.from_tensors({name: t.to(self.device) for name, t in tensors.items()})

    def build_bases(
        self,
        texts: Sequence[str],
        negative: str,
        *,
        seeds: int,
        steps: int,
        guided: Sequence[int],
        sites: Sequence[str],
        components: int,
        guidance_scale: float,
        by_inversion: bool,
        metadata: dict[str, Any],
    ) -> SemanticBases:
        """Semantic bases from `seeds` pictures; the texts take turns, seed i has generator seed i."""
        timesteps = self.timesteps(steps)
        grams: dict[analysis.Site, Any] = {}
        size = (self.base_size, self.base_size)
        batches = math.ceil(seeds / SEED_BATCH)
        steps_each = 2 * steps if by_inversion else timesteps.index(min(guided)) + 1
        with self.progress(batches * steps_each, "semantic bases") as bar:
            for first in range(0, seeds, SEED_BATCH):
                numbers = range(first, min(first + SEED_BATCH, seeds))
                asked = [texts[i % len(texts)] for i in numbers]
                prompt = self.encode_prompt(asked, [negative] * len(numbers), size=size)
                noise = self.noise(size, [torch.Generator().manual_seed(i) for i in numbers])
                analysis.seed_features(
                    self.denoiser,
                    self.scheduler,
                    Lane(noise, prompt, guidance_scale),
                    timesteps,
                    guided,
                    sites,
                    grams,
                    by_inversion=by_inversion,
                    on_step=bar.update,
                )
        return analysis.solve(grams, components, metadata)

    def cached(self, kind: str, key: str, build: Build) -> dict[str, Tensor]:
        """Tensors of a cache entry, built if missing; the cost record says which."""
        return self.cached_with_metadata(kind, key, build)[0]

    def cached_with_metadata(self, kind: str, key: str, build: Build) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and metadata of a cache entry, built if missing."""
        if self.cache is None:
            (tensors, metadata), hit = build(), False
        else:
            tensors, metadata, hit = self.cache.get_or_build(kind, key, build)
        if kind in self.cost.cached:
            # Several pictures in one run: "cached" means that all of them were.
            self.cost.cached[kind] = hit and (self.cost.cached[kind] or kind not in self._asked)
            self._asked.add(kind)
        return tensors, metadata

    def progress(self, total: int, label: str) -> Any:
        """The pipeline's own progress bar, labelled."""
        bar = self.pipe.progress_bar(total=total)
        bar.set_description(label)
        return bar
