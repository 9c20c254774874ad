"""The arguments of a pipeline call: all of them checked before anything runs, each error by the argument's name."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from pydantic import ValidationError
from torch import Tensor

from freectl.denoising.cost import Cost
from freectl.errors import InputError, unknown
from freectl.files.cache import Cache
from freectl.methods.base import Condition, Method
from freectl.methods.freecontrol.method import FreeControl
from freectl.methods.setting import fault
from freectl.models.text_extras import TextExtras

P = ParamSpec("P")
R = TypeVar("R")
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
RENAMED = {"steps": "num_inference_steps", "keep_background": "keep"}
"""Options of commands whose arguments here are called otherwise."""
REFUSED: dict[str, str] = {
    "strength": "nothing; how far a picture may change is a setting of the method, such as strength of sdedit",
    "clip_skip": "nothing; text is read from the layer that the model was trained with",
    "mask_image": "mask, white where the structure holds, or keep, white where the picture stays",
    "ip_adapter_image": "appearance_image; image prompts would replace the attention that methods act on",
    "ip_adapter_image_embeds": "appearance_image; image prompts would replace the attention that methods act on",
    "guidance_rescale": "nothing; guidance is not rescaled",
    "true_cfg_scale": "guidance_scale, which means the same on all models",
    "cfg_normalization": "nothing; guidance is not normalised",
    "cfg_truncation": "nothing; guidance acts in every step",
    "timesteps": "num_inference_steps; inversion needs the schedule's own grid",
    "sigmas": "num_inference_steps; inversion needs the schedule's own grid",
    "denoising_end": "nothing; a run ends at the clean picture",
    "denoising_start": "nothing; where a run starts is a setting of the method",
    "callback": "callback_on_step_end",
    "callback_steps": "callback_on_step_end",
}
"""Arguments of diffusers' pipelines that have no place here, and what to give instead."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a pipeline was called with; see `FreeControlMixin.__call__`."""

    prompt: Any
    image: Any
    height: int | None
    width: int | None
    num_inference_steps: int
    guidance_scale: float | None
    negative_prompt: Any
    num_images_per_prompt: int
    eta: float
    generator: Any
    latents: Tensor | None
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    output_type: str
    return_dict: bool
    cross_attention_kwargs: dict[str, Any] | None
    callback_on_step_end: Any
    callback_on_step_end_tensor_inputs: list[str] | None
    source_prompt: str | Sequence[str]
    concept: str | None
    mask: Any
    appearance_image: Any
    conditions: Sequence[Condition] | None
    keep: Any
    keep_concept: str | None
    method: Method | None
    cache: Cache | None
    cost: Cost | None
    settings: Any
    long_prompts: bool
    overrides: dict[str, Any]
    extras: TextExtras

    @property
    def chosen(self) -> Method:
        """The method that is asked for, FreeControl where none is."""
        return FreeControl() if self.method is None else self.method

    @property
    def tensor_names(self) -> list[str]:
        """The tensors that the callback wants."""
        if isinstance(self.callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            return list(self.callback_on_step_end.tensor_inputs)
        return list(self.callback_on_step_end_tensor_inputs or ["latents"])

    @property
    def texts(self) -> list[str]:
        """One a result; empty ones where embeddings are given."""
        if self.prompt_embeds is not None:
            return [""] * (self.prompt_embeds.shape[0] * self.num_images_per_prompt)
        each = [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)
        return [text for text in each for _ in range(self.num_images_per_prompt)]


def named(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a pipeline's call, so that input errors name its arguments where methods name options of commands."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            said = error.in_python()
            raise type(said)(RENAMED.get(said.option, said.option), said.found, said.allowed) from error.__cause__

    return called


def check_call(call: Call, tensor_names: Sequence[str], negatives: bool = True) -> None:
    """Check what a call is given, before anything runs.

    Args:
        tensor_names: what callbacks may ask for.
        negatives: whether given embeddings need those of negative prompts.

    Raises:
        InputError: an argument has a value that cannot be used; it is named.
    """
    _check_prompt(call, negatives)
    if not call.conditions and call.image is None:
        raise InputError("image", "None", "a picture, or a list of them")
    if call.conditions and call.image is not None:
        raise InputError("image", "given with conditions", "one of the two")
    if call.conditions and call.keep is not None:
        raise InputError("keep", "given with conditions", "an image of which something is kept")
    for one in call.conditions or ():
        if not isinstance(one, Condition):
            raise InputError("conditions", f"a {type(one).__name__}", "freectl.methods.base.Condition objects")
    unknown_names = [name for name in call.tensor_names if name not in tensor_names]
    if unknown_names:
        raise InputError("callback_on_step_end_tensor_inputs", str(unknown_names), ", ".join(tensor_names))
    if call.output_type not in OUTPUT_TYPES:
        raise InputError("output_type", repr(call.output_type), ", ".join(OUTPUT_TYPES))
    _check_numbers(call)


def _check_prompt(call: Call, negatives: bool) -> None:
    if (call.prompt is None) == (call.prompt_embeds is None):
        raise InputError("prompt", "both or neither of prompt and prompt_embeds", "exactly one of them")
    if call.prompt_embeds is None:
        texts = [call.prompt] if isinstance(call.prompt, str) else call.prompt
        if not isinstance(texts, list | tuple) or not texts:
            raise InputError("prompt", repr(call.prompt), "text that is not empty, or a list of such")
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise InputError("prompt", repr(call.prompt), "text that is not empty, or a list of such")
        return
    if call.negative_prompt_embeds is None and negatives:
        raise InputError("negative_prompt_embeds", "None", "embeddings, since prompt_embeds are given")
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        embeds = getattr(call, name)
        if embeds is None:
            continue
        if not isinstance(embeds, Tensor) or embeds.dim() != 3 or not torch.isfinite(embeds).all():
            shape = tuple(embeds.shape) if isinstance(embeds, Tensor) else type(embeds).__name__
            raise InputError(name, f"{shape}", "a finite tensor (N, tokens, channels)")


def _check_numbers(call: Call) -> None:
    for name in ("num_inference_steps", "num_images_per_prompt"):
        number = getattr(call, name)
        if not isinstance(number, int) or number < 1:
            raise InputError(name, repr(number), "a whole number of 1 or more")
    numbers = {"guidance_scale": call.guidance_scale, "eta": call.eta, "true_cfg_scale": call.extras.true_scale}
    for name, number in numbers.items():
        low = 0.0 if name == "eta" else -math.inf
        if number is None and name != "eta":
            continue
        if not isinstance(number, int | float) or not math.isfinite(number) or number < low:
            raise InputError(name, repr(number), "a finite number" if low < 0 else "a number of 0 or more")
    for name in ("height", "width"):
        number = getattr(call, name)
        if number is not None and (not isinstance(number, int) or number < 1):
            raise InputError(name, repr(number), "a whole number of pixels, or None")
    if call.latents is not None and not (isinstance(call.latents, Tensor) and bool(torch.isfinite(call.latents).all())):
        raise InputError("latents", f"a {type(call.latents).__name__} that is no finite tensor", "finite noise")


def settings_of(call: Call) -> Any:
    """The method's settings, from an object or from single ones.

    Raises:
        InputError: the method is no method, or an argument is unknown or out of range; it is named.
    """
    if not isinstance(call.chosen, Method):
        raise InputError("method", repr(call.method), "a method such as freectl.methods.get('pnp'), or None")
    given = {name: value for name, value in call.overrides.items() if name not in REFUSED or value is not None}
    if given.get("guidance_rescale") == 0:
        del given["guidance_rescale"]
    known = call.chosen.settings.model_fields
    for name in given:
        if name in known and call.settings is None:
            continue
        if name in known:
            raise InputError(name, "given with settings", "one of the two")
        if name in REFUSED:
            raise InputError(name, f"given to {call.chosen.name}", REFUSED[name])
        arguments = [one.name for one in fields(Call) if one.name not in ("overrides", "extras")]
        raise unknown(name, name, [*known, *arguments])
    if call.settings is not None:
        return call.settings
    try:
        return call.chosen.settings(**given)
    except ValidationError as error:
        raise InputError(*fault(error)) from None
