"""`FreeControl3Pipeline`: the same call for Stable Diffusion 3 and 3.5."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    SiglipImageProcessor,
    SiglipVisionModel,
    T5EncoderModel,
    T5TokenizerFast,
)

from freectl.denoising.cost import Cost
from freectl.files.cache import Cache
from freectl.methods.base import Condition, Method
from freectl.models.engine import Engine
from freectl.models.joint_text import DEFAULT_LENGTH
from freectl.models.text_extras import TextExtras
from freectl.pipelines.arguments import Call, named
from freectl.pipelines.base import FreeControlMixin, FreeControlPipelineOutput
from freectl.pipelines.call_inputs import Picture, Pictures


class FreeControl3Pipeline(FreeControlMixin, StableDiffusion3Pipeline):
    """Training-free editing for Stable Diffusion 3 and 3.5.

    A `StableDiffusion3Pipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline` and
    Stable Diffusion 3's own. Folders without the third text encoder open too.

    Args:
        max_sequence_length: tokens of the third text encoder, zeros where it is missing; 0 = none.
    """

    plain_class = "StableDiffusion3Pipeline"
    _optional_components = [  # noqa: RUF012 - as diffusers declares it
        *StableDiffusion3Pipeline._optional_components,
        "text_encoder_3",
        "tokenizer_3",
    ]
    _callback_tensor_inputs = [  # noqa: RUF012 - as diffusers declares it
        *StableDiffusion3Pipeline._callback_tensor_inputs,
        "negative_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ]

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer_2: CLIPTokenizer,
        text_encoder_3: T5EncoderModel = None,
        tokenizer_3: T5TokenizerFast = None,
        image_encoder: SiglipVisionModel = None,
        feature_extractor: SiglipImageProcessor = None,
        max_sequence_length: int = DEFAULT_LENGTH,
    ) -> None:
        super().__init__(
            transformer,
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            text_encoder_2,
            tokenizer_2,
            text_encoder_3,
            tokenizer_3,
            image_encoder,
            feature_extractor,
        )
        self.register_to_config(max_sequence_length=max_sequence_length)

    @named
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Pictures | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        *,
        source_prompt: str | list[str] = "",
        concept: str | None = None,
        mask: Picture | None = None,
        appearance_image: Picture | None = None,
        conditions: Sequence[Condition] | None = None,
        keep: Picture | None = None,
        keep_concept: str | None = None,
        method: Method | None = None,
        cache: Cache | None = None,
        cost: Cost | None = None,
        settings: Any = None,
        long_prompts: bool = False,
        prompt_2: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> FreeControlPipelineOutput | tuple:
        """Edit pictures.

        Args:
            prompt, image, ...: as for `FreeControlPipeline.__call__`.
            prompt_2, negative_prompt_2: texts of the second encoder; default: those of the first.
            pooled_prompt_embeds, negative_pooled_prompt_embeds: (N, C), with `prompt_embeds`.
            joint_attention_kwargs: for the attention processors, as in diffusers.

        Raises:
            InputError: an argument cannot be used; nothing has run then.
        """
        given = locals()
        extras = TextExtras(
            pooled=pooled_prompt_embeds,
            negative_pooled=negative_pooled_prompt_embeds,
            second=prompt_2,
            negative_second=negative_prompt_2,
        )
        shared = {one.name: given[one.name] for one in fields(Call) if one.name != "extras"}
        if joint_attention_kwargs is not None:
            shared["cross_attention_kwargs"] = joint_attention_kwargs
        return self.run(Call(extras=extras, **shared))

    def _begin(self, guidance_scale: float, steps: int, kwargs: dict[str, Any] | None) -> None:
        super()._begin(guidance_scale, steps, kwargs)
        self._joint_attention_kwargs = kwargs

    def _screened(self, pixels: Tensor, engine: Engine) -> tuple[Tensor, list[bool] | None]:
        return pixels, None
