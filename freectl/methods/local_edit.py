"""Edits that leave a part of the picture as it is, for every method: the input's latents outside, at every step.

Blended diffusion (Avrahami et al., arXiv 2206.02779) and SDEdit's masked variant (arXiv 2108.01073): after each step
x_t = m x_t + (1 - m) x_t^source, m = 1 where the picture may change. The finished picture takes the input's own pixels
there, so that what is kept is kept bit for bit and not merely as well as the autoencoder draws it.
"""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from freectl.denoising import attention_maps
from freectl.denoising.attention_layers import TEXT
from freectl.denoising.guided_filter import guided_filter
from freectl.denoising.injection import text_of
from freectl.denoising.inversion import Trajectory
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step
from freectl.errors import InputError
from freectl.files.cache import content_key
from freectl.models.engine import Engine
from freectl.semantics.analysis import passing_at

BACKGROUND = "background"
"""In place of a mask picture: keep what is not the concept."""
ATTENTION_TIMES = (0.2, 0.4, 0.6, 0.8)
"""Where the concept is looked for, as shares of the schedule; measured on the embedded model."""
NOISE_SEED = 0
EDGE_WINDOW, EDGE_VARIANCE = 1 / 6, 1e-3
"""Guided filter that gives the attention the picture's edges: radius as a share of the longer side, and epsilon;
measured on the embedded model."""


def kept_pictures(
    engine: Engine,
    images: Sequence[Image.Image],
    keep: Image.Image | str | None,
    source_prompts: Sequence[str],
    concept: str | None,
) -> list[Image.Image]:
    """What is kept of each picture: "L" of the pictures' size, white = kept; empty if nothing is asked to be.

    Args:
        keep: mask of the pictures' size, white = kept; "background" for all but the concept, found by its
            cross-attention in the picture; or None.

    Raises:
        InputError: no concept or none that the source prompt names, or a mask that leaves nothing to change.
    """
    if keep is None:
        return []
    if isinstance(keep, Image.Image):
        kept = [_resized(keep, image.size) for image in images]
    elif keep == BACKGROUND:
        if concept is None:
            raise InputError(
                "--keep-background", "no --keep-concept", "a --keep-concept that is in the --source-prompt"
            )
        kept = [_background(engine, image, text, concept) for image, text in zip(images, source_prompts, strict=True)]
    else:
        raise InputError("keep", repr(keep), f"a picture, '{BACKGROUND}' or None")
    if any(mask.getextrema() == (255, 255) for mask in kept):
        raise InputError("--keep", "a mask that keeps everything", "one that is black where the picture may change")
    return kept


def _resized(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    mask = mask.convert("L")
    mask = mask if mask.size == size else mask.resize(size, Image.Resampling.BOX)
    return mask.point(lambda value: 255 if value >= 128 else 0)


def _background(engine: Engine, image: Image.Image, source_prompt: str, concept: str) -> Image.Image:
    """All of a picture but the concept, from cross-attention in its noised latents; cached.

    The noise is the same for all methods and seeds, so that a mask is too.
    """
    layers = engine.family.word_layers(engine.network)
    if not layers:
        found = f"a {engine.family.name} model, whose attention is not read for words"
        raise InputError("--keep-background", found, "--keep PATH")
    sites = [site for layer in layers for site in layer.asked]
    positions = engine.token_positions(source_prompt, concept, "--keep-background")
    times = sorted({round(share * (engine.schedule.length - 1)) for share in ATTENTION_TIMES})
    key = content_key(
        what="keep",
        model=engine.model_key(),
        image=image.tobytes(),
        size=list(image.size),
        prompt=source_prompt,
        positions=positions,
        times=times,
        sites=sites,
    )

    def build() -> tuple[dict[str, Tensor], dict]:
        clean = engine.encode_images([image])
        noise = engine.noise(image.size, [torch.Generator().manual_seed(NOISE_SEED)])
        levels: dict[float, Tensor] = {t: engine.schedule.noised(clean, noise, t) for t in times}
        prompt, size = engine.encode_prompt([source_prompt]), (clean.shape[-2], clean.shape[-1])
        found = passing_at(engine.denoiser, Trajectory(clean, levels), prompt, times, sites)
        seen, text = attention_maps.WordMaps(), text_of([(prompt, "cond")])
        for t in times:
            captured = {site: found[t, site] for site in sites} | ({} if text is None else {TEXT: text})
            seen.add(concept, attention_maps.word_maps(engine.network, captured, layers, positions, size))
        return {"map": seen.mean(concept, size)}, {"prompt": source_prompt}

    place = _place(engine.cached("reference", key, build)["map"], image)
    if not place.any():
        allowed = "a concept that the picture shows, another --source-prompt, or --keep PATH"
        raise InputError("--keep-background", f"'{concept}', whose attention is flat in this picture", allowed)
    return Image.fromarray(((1 - place[0]) * 255).byte().cpu().numpy())


def _place(seen: Tensor, image: Image.Image) -> Tensor:
    """Where an attention map (1, h, w) says that the concept is, brought to the picture's edges: (1, H, W) of 0, 1."""
    width, height = image.size
    coarse = interpolate(seen.cpu()[:, None].double(), size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    spread = coarse.amax() - coarse.amin()
    if not spread > attention_maps.FLAT * coarse.amax():
        return torch.zeros_like(coarse)
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(1, height, width, 3)
    guide = pixels.movedim(-1, 1) / 255
    radius = max(1, round(EDGE_WINDOW * max(image.size)))
    return attention_maps.word_mask(guided_filter(guide, (coarse - coarse.amin()) / spread, radius, EDGE_VARIANCE))


def changing(kept: Sequence[Image.Image], size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """m (B, 1, h, w) of 0 and 1: latent cells that are not wholly kept; `size` = (h, w)."""
    pixels = torch.stack([torch.frombuffer(bytearray(k.tobytes()), dtype=torch.uint8).view(k.size[::-1]) for k in kept])
    return adaptive_max_pool2d((pixels[:, None] < 128).float().to(device), size)


def composite(result: Image.Image, original: Image.Image, kept: Image.Image) -> Image.Image:
    """The result with the original's pixels where they are kept; all of one size."""
    return Image.composite(original.convert("RGB"), result.convert("RGB"), kept)


class Keeping(Controller):
    """Runs another controller and sets lane "edit" to the input's latents where the picture is kept.

    Args:
        inner: the method's controller.
        mask: m (B, 1, h, w), 1 where the picture may change.
        source: the input's latents at the levels of the loop.
    """

    def __init__(self, inner: Controller, mask: Tensor, source: Trajectory) -> None:
        self.inner, self.mask, self.source, self.below = inner, mask, source, source.below

    def repeats(self, step: Step) -> int:
        """The inner controller's."""
        return self.inner.repeats(step)

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """The inner controller's."""
        return self.inner.active(step, lanes)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """The first step, and one that is taken again, start from the input's level too."""
        self.inner.before(step, lanes)
        self._blend(lanes["edit"], self.source.levels[step.timestep])

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """The inner controller's."""
        return self.inner.predict(step, lanes, denoiser)

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """The inner controller's."""
        return self.inner.noise(step, name, lane, generators)

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """x = m x + (1 - m) x_source at the level the step has led to."""
        self.inner.after(step, lanes)
        self._blend(lanes["edit"], self.below[step.timestep])

    def _blend(self, edit: Lane, source: Tensor) -> None:
        source = source.to(edit.latents)
        edit.latents = torch.where(self.mask.to(edit.latents.device) > 0, edit.latents, source)


def composite_tensor(pixels: Tensor, originals: Tensor, kept: Sequence[Image.Image]) -> Tensor:
    """`composite` of tensors (B, 3, H, W), in fp32, so that 8-bit values come back as they were."""
    may_change = changing(kept, (pixels.shape[-2], pixels.shape[-1]), pixels.device)
    return torch.where(may_change > 0, pixels.float(), originals.to(pixels.device).float())


def straight_levels(path: Path, clean: Tensor, start: Tensor, timesteps: Sequence[float]) -> Trajectory:
    """Noised source latents for a run without inversion: x = a x_0 + s n.

    n is the one noise for which the first timestep's level is the run's own start: SDEdit's noise, or the noise that
    the start is.

    Args:
        clean: x_0 (B, C, h, w). start: the run's latents at `timesteps[0]`, the largest.
    """

    noise = path.noise_in(start, clean, timesteps[0])
    return Trajectory(clean, {time: path.mixed(clean, noise, time) for time in timesteps})
