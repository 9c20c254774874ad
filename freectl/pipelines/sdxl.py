"""`FreeControlXLPipeline`: the same call for Stable Diffusion XL."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from freectl.denoising.cost import Cost
from freectl.denoising.schedules import ddim
from freectl.files.cache import Cache
from freectl.methods.base import Condition, Method
from freectl.models.engine import Engine
from freectl.models.text_extras import MicroConditioning, Size, TextExtras
from freectl.pipelines.arguments import Call, named
from freectl.pipelines.base import FreeControlMixin, FreeControlPipelineOutput
from freectl.pipelines.call_inputs import Picture, Pictures


class FreeControlXLPipeline(FreeControlMixin, StableDiffusionXLPipeline):
    """Training-free structure and appearance control for Stable Diffusion XL (arXiv 2312.07536).

    A `StableDiffusionXLPipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline` and SDXL's
    own. Any scheduler is replaced by DDIM.
    """

    plain_class = "StableDiffusionXLPipeline"
    _callback_tensor_inputs = [  # noqa: RUF012 - as diffusers declares it
        *StableDiffusionXLPipeline._callback_tensor_inputs,
        "negative_prompt_embeds",
        "negative_add_text_embeds",
        "negative_add_time_ids",
    ]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessor = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            text_encoder_2,
            tokenizer,
            tokenizer_2,
            unet,
            None if scheduler is None else ddim(scheduler),
            image_encoder,
            feature_extractor,
            force_zeros_for_empty_prompt,
            add_watermarker,
        )

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
        original_size: Size | None = None,
        crops_coords_top_left: Size = (0, 0),
        target_size: Size | None = None,
        negative_original_size: Size | None = None,
        negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None,
        **overrides: Any,
    ) -> FreeControlPipelineOutput | tuple:
        """Edit pictures, or make pictures with their structure.

        Args:
            prompt, image, ...: as for `FreeControlPipeline.__call__`.
            prompt_2, negative_prompt_2: texts of the second encoder; default: those of the first.
            pooled_prompt_embeds, negative_pooled_prompt_embeds: (N, C), with `prompt_embeds`.
            original_size, crops_coords_top_left, target_size: (height, width) and (top, left) in pixels that the model
                is told (arXiv 2307.01952, section 2.2); default: the working size, uncropped.
            negative_original_size, ...: the same for the unconditional half.

        Raises:
            InputError: an argument cannot be used; nothing has run then.
        """
        given = locals()
        extras = TextExtras(
            pooled=pooled_prompt_embeds,
            negative_pooled=negative_pooled_prompt_embeds,
            second=prompt_2,
            negative_second=negative_prompt_2,
            micro=MicroConditioning(**{one.name: given[one.name] for one in fields(MicroConditioning)}),
        )
        shared = {one.name: given[one.name] for one in fields(Call) if one.name != "extras"}
        return self.run(Call(extras=extras, **shared))

    def _screened(self, pixels: Tensor, engine: Engine) -> tuple[Tensor, list[bool] | None]:
        if self.watermark is not None:
            pixels = self.watermark.apply_watermark(pixels)
        return pixels, None
