"""What a pipeline call is given, checked and brought to the form the methods take."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising.sampler import Prompt
from freectl.errors import InputError
from freectl.models.conditioning import TextExtras, paired
from freectl.models.engine import Engine


def check_call(
    prompt: Any,
    extras: TextExtras,
    image: Any,
    names: list[str],
    output_type: str,
    count: int,
    tensor_names: list[str],
) -> None:
    """Check what a call is given, before anything runs.

    Raises:
        InputError: both or neither of prompt and embeddings, empty text, no picture, unknown names.
    """
    if (prompt is None) == (extras.embeds is None):
        raise InputError("prompt", "both or neither of prompt and prompt_embeds", "exactly one of them")
    texts = [prompt] if isinstance(prompt, str) else list(prompt or [])
    if extras.embeds is None and (not texts or any(not isinstance(t, str) or not t.strip() for t in texts)):
        raise InputError("prompt", repr(prompt), "text that is not empty, or a list of such")
    if extras.embeds is not None and extras.negative_embeds is None:
        raise InputError("negative_prompt_embeds", "None", "embeddings, since prompt_embeds are given")
    if image is None:
        raise InputError("image", "None", "a PIL picture, or a list of them")
    unknown = [name for name in names if name not in tensor_names]
    if unknown:
        allowed = ", ".join(tensor_names)
        raise InputError("callback_on_step_end_tensor_inputs", str(unknown), allowed)
    if output_type not in ("pil", "np", "pt", "latent"):
        raise InputError("output_type", repr(output_type), "pil, np, pt, latent")
    if count < 1:
        raise InputError("num_images_per_prompt", str(count), "1 or more")


def encode_texts(
    engine: Engine, texts: list[str], negative: str | list[str] | None, extras: TextExtras, guidance_scale: float
) -> Prompt:
    """The texts, or given embeddings, as the prompt of B rows; no unconditional half without guidance.

    Raises:
        InputError: the number of negative prompts or of embeddings does not fit, or pooled embeddings are missing.
    """
    guided, working = guidance_scale > 1, engine.size[::-1]
    if extras.embeds is not None:
        given = (extras.embeds, extras.negative_embeds if guided else None, extras.pooled, extras.negative_pooled)
        cond, uncond, pooled, negative_pooled = (_rows(one, len(texts), engine) for one in given)
        return engine.text.assembled(cond, uncond, pooled, negative_pooled, working, engine.micro)  # type: ignore[arg-type]
    negatives = paired("negative_prompt", negative or "", len(texts)) if guided else None
    return engine.text.encode(
        texts,
        negatives,
        working,
        engine.micro,
        paired("prompt_2", extras.second, len(texts)),
        paired("negative_prompt_2", extras.negative_second, len(texts)),
    )


def _rows(embeds: Tensor | None, count: int, engine: Engine) -> Tensor | None:
    """Embeddings (N, ...) repeated in place to (count, ...)."""
    if embeds is None:
        return None
    repeat = count // embeds.shape[0]
    if repeat * embeds.shape[0] != count:
        raise InputError("prompt_embeds", f"{embeds.shape[0]} rows for {count} results", "one a prompt in each of them")
    return embeds.repeat_interleave(repeat, 0).to(engine.device, engine.dtype)


def per_image_generators(generator: Any, count: int) -> list[torch.Generator]:
    """One CPU generator a picture: given ones, or seeds drawn from a single one, so that pictures differ."""
    if isinstance(generator, list):
        if len(generator) != count:
            raise InputError("generator", f"{len(generator)} generators for {count} pictures", "one a picture")
        return generator
    first = generator if generator is not None else torch.Generator().manual_seed(torch.seed())
    if count == 1:
        return [first]
    seeds = torch.randint(2**62, (count,), generator=first, device=first.device).tolist()
    return [torch.Generator(first.device).manual_seed(seed) for seed in seeds]


def fit_images(
    image: Any, count: int, per_prompt: int, width: int | None, height: int | None, engine: Engine
) -> tuple[list[Image.Image], tuple[int, int]]:
    """Pictures repeated to the batch and resized to a size the UNet takes.

    Raises:
        InputError: their number does not fit, or a side is not a multiple of what the VAE takes.
    """
    images = list(image) if isinstance(image, list | tuple) else [image]
    if len(images) == 1:
        images = images * count
    elif len(images) * per_prompt == count:
        images = [one for one in images for _ in range(per_prompt)]
    if len(images) != count:
        raise InputError("image", f"{len(images)} pictures for {count} results", "one, or one a prompt")
    multiple = engine.working_multiple
    own_width, own_height = (max(multiple, round(own / multiple) * multiple) for own in images[0].size)
    size = (width or own_width, height or own_height)
    for name, side in zip(("width", "height"), size, strict=True):
        if side % multiple or side < multiple:
            raise InputError(name, str(side), f"a multiple of {multiple}")
    return [resized(one, size) for one in images], size


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB at `size`; bit for bit if it has that size."""
    return image.convert("RGB") if image.size == size else image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
