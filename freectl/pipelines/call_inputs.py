"""What a pipeline call is given, checked and brought to the form the methods take."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising.sampler import Prompt
from freectl.errors import InputError
from freectl.files.pictures import all_as_seen, as_seen
from freectl.methods.base import Condition, Request
from freectl.methods.local_edit import kept_pictures
from freectl.models.engine import Engine
from freectl.models.text_extras import TextExtras, paired
from freectl.pipelines.arguments import Call

Picture = Any
"""A PIL picture, a path, an array or a tensor; see `freectl.files.pictures.as_seen`."""
NO_NEGATIVE = "nothing, or true_cfg_scale above 1 beside it where the pipeline has that"
Pictures = Any
"""A picture, a list of them, an array or tensor with a batch axis, or scaled latents."""


def made_request(engine: Engine, call: Call, extras: TextExtras, guidance_scale: float) -> Request:
    """What a method is to do, from what a pipeline was called with; texts are encoded and pictures read.

    Raises:
        InputError: pictures, texts or embeddings do not fit each other or cannot be used.
    """
    texts, conditions = call.texts, list(call.conditions or ())
    first, option = (conditions[0].image, "conditions") if conditions else (call.image, "image")
    pictures = read_pictures(engine, first, option)
    images, engine.size = fit_images(pictures, len(texts), call.num_images_per_prompt, call.width, call.height, engine)
    engine.check_size(engine.size)
    sources = source_prompts(call.source_prompt, len(texts))
    _tell_lengths(engine, call, extras, texts, conditions)
    keep = call.keep if isinstance(call.keep, str | None) else mask_of(call.keep, "keep")
    with engine.cost.counting(engine.network), engine.cost.stage("analysis"):
        kept = kept_pictures(engine, images, keep, sources, call.keep_concept or call.concept)
    appearance = None if call.appearance_image is None else as_seen(call.appearance_image, "appearance_image")
    return Request(
        images=[] if conditions else images,
        prompt=encode_texts(engine, texts, call.negative_prompt, extras, guidance_scale),
        texts=texts,
        source_prompts=sources,
        size=engine.size,
        steps=call.num_inference_steps,
        guidance_scale=guidance_scale,
        eta=call.eta,
        generators=per_image_generators(call.generator, len(texts)),
        concept=call.concept,
        latents=None if call.latents is None else _start(call.latents, len(texts), engine),
        mask=mask_of(call.mask, "mask"),
        appearance_image=None if appearance is None else resized(appearance, engine.size),
        conditions=[fitted_condition(one, engine.size) for one in conditions],
        kept=kept,
    )


def source_prompts(given: str | Sequence[str], count: int) -> list[str]:
    """One source prompt a result, from one for all or from as many.

    Raises:
        InputError: their number does not fit.
    """
    each = [given] * count if isinstance(given, str) else list(given)
    if len(each) != count:
        raise InputError("source_prompt", f"{len(each)} texts for {count} results", "one, or one a result")
    return each


def _tell_lengths(
    engine: Engine, call: Call, extras: TextExtras, texts: list[str], conditions: Sequence[Condition]
) -> None:
    """Make room for the longest text, or warn of what is not read."""
    said = {"prompt": texts, "negative_prompt": call.negative_prompt, "source_prompt": call.source_prompt}
    said |= {"prompt_2": extras.second, "negative_prompt_2": extras.negative_second}
    said |= {f"source_prompt of condition {i + 1}": one.source_prompt for i, one in enumerate(conditions)}
    each = {name: [given] if isinstance(given, str) else list(given or ()) for name, given in said.items()}
    engine.text.make_room(text for several in each.values() for text in several)
    engine.warnings += [warning for name, several in each.items() for warning in unseen(engine, name, several)]


def unseen(engine: Engine, name: str, texts: Sequence[str]) -> list[str]:
    """A warning for each text of an argument that is longer than the text encoder reads."""
    left = [rest for text in dict.fromkeys(texts) if (rest := engine.text.unseen(text))]
    length, more = engine.text.reads, " (long_prompts reads all)" if engine.text.takes_pieces else ""
    return [
        f"{name} is longer than the {length} tokens that the model reads{more}; not seen: '{rest}'" for rest in left
    ]


def mask_of(mask: Any, option: str) -> Any:
    """A mask as "L" of its own size; words and None as they are.

    Raises:
        InputError: it is no picture.
    """
    if mask is None or isinstance(mask, str):
        return mask
    return as_seen(mask, option, "black").convert("L")


def fitted_condition(condition: Condition, size: tuple[int, int]) -> Condition:
    """The condition with its picture at `size`, and its mask too where that is a picture.

    Raises:
        InputError: one of them is no picture.
    """
    mask = mask_of(condition.mask, "conditions")
    if isinstance(mask, Image.Image):
        mask = mask.resize(size, Image.Resampling.BOX)
    return replace(condition, image=resized(as_seen(condition.image, "conditions"), size), mask=mask)


def read_pictures(engine: Engine, images: Any, option: str) -> list[Image.Image]:
    """Pictures as a viewer shows them; of scaled latents the decoded ones, which are not encoded again.

    Raises:
        InputError: something that is no picture.
    """
    channels = engine.family.latent_shape(engine.network)[0]
    several = isinstance(images, list | tuple) and len(images) > 0
    each = list(images) if several else [images]
    if all(isinstance(one, Tensor) and one.dim() in (3, 4) and one.shape[-3] == channels for one in each):
        return engine.pictures_of(torch.cat([one if one.dim() == 4 else one[None] for one in each]))
    return all_as_seen(images, option)


def _start(latents: Tensor, count: int, engine: Engine) -> Tensor:
    width, height = (side // engine.codec.factor for side in engine.size)
    shape = (count, engine.family.latent_shape(engine.network)[0], height, width)
    latents = engine.family.unpacked(engine.network, latents, (height, width))
    if tuple(latents.shape) != shape:
        raise InputError("latents", f"{tuple(latents.shape)}", f"{shape} for this picture")
    return latents.to(engine.device, engine.latent_dtype)


def encode_texts(
    engine: Engine, texts: list[str], negative: str | list[str] | None, extras: TextExtras, guidance_scale: float
) -> Prompt:
    """The texts, or given embeddings, as the prompt of B rows; no unconditional half without guidance.

    Raises:
        InputError: the number of negative prompts or of embeddings does not fit, or pooled embeddings are missing.
    """
    guided, working = guidance_scale > 1 and engine.halves, engine.size[::-1]
    if negative and any(negative) and not engine.halves:
        found = f"given to a {engine.family.name} model, whose guidance has no row for it"
        raise InputError("--negative-prompt", found, NO_NEGATIVE)
    if extras.embeds is not None:
        given = (extras.embeds, extras.negative_embeds if guided else None, extras.pooled, extras.negative_pooled)
        cond, uncond, pooled, negative_pooled = (_rows(one, len(texts), engine) for one in given)
        if guided and uncond is None:
            uncond, negative_pooled = _encoded_negative(engine, negative, len(texts))
        cond, uncond = engine.of_one_length(cond, uncond)  # type: ignore[arg-type]
        return engine.text.assembled(cond, uncond, pooled, negative_pooled, working, engine.micro)
    negatives = paired("negative_prompt", negative or "", len(texts)) if guided else None
    return engine.text.encode(
        texts,
        negatives,
        working,
        engine.micro,
        paired("prompt_2", extras.second, len(texts)),
        paired("negative_prompt_2", extras.negative_second, len(texts)),
    )


def _encoded_negative(engine: Engine, negative: Any, count: int) -> tuple[Tensor, Tensor | None]:
    """Embeddings of negative prompts, and what beside them `TextExtras` has as `negative_pooled`."""
    made = engine.encode_prompt(paired("negative_prompt", negative or "", count) or [])
    return made.cond, next(iter(made.added.get("cond", {}).values()), None)


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
    if isinstance(generator, list | tuple):
        if len(generator) != count:
            raise InputError("generator", f"{len(generator)} generators for {count} pictures", "one a picture")
        return list(generator)
    first = generator if generator is not None else torch.Generator().manual_seed(torch.seed())
    if count == 1:
        return [first]
    seeds = torch.randint(2**62, (count,), generator=first, device=first.device).tolist()
    return [torch.Generator(first.device).manual_seed(seed) for seed in seeds]


def fit_images(
    images: list[Image.Image], count: int, per_prompt: int, width: int | None, height: int | None, engine: Engine
) -> tuple[list[Image.Image], tuple[int, int]]:
    """Pictures repeated to the batch and resized to a size the UNet takes.

    Raises:
        InputError: their number does not fit, or a side is not a multiple of what the VAE takes.
    """
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
