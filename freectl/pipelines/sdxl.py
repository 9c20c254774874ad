"""`FreeControlXLPipeline`: the same call for Stable Diffusion XL."""

from typing import Any

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

from freectl.denoising.path import ddim
from freectl.models.conditioning import MicroConditioning, Size, TextExtras
from freectl.models.engine import Engine
from freectl.pipelines.base import FreeControlMixin, FreeControlPipelineOutput


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
            ddim(scheduler),
            image_encoder,
            feature_extractor,
            force_zeros_for_empty_prompt,
            add_watermarker,
        )

    def __call__(
        self,
        *args: Any,
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
        **options: Any,
    ) -> FreeControlPipelineOutput | tuple:
        """Edit pictures, or make pictures with their structure.

        Args:
            args, options: as for `FreeControlPipeline.__call__`.
            prompt_2, negative_prompt_2: texts of the second encoder; default: those of the first.
            pooled_prompt_embeds, negative_pooled_prompt_embeds: (N, C), with `prompt_embeds`.
            original_size, crops_coords_top_left, target_size: (height, width) and (top, left) in pixels that the model
                is told (arXiv 2307.01952, section 2.2); default: the working size, uncropped.
            negative_original_size, ...: the same for the unconditional half.

        Raises:
            InputError: an argument cannot be used; nothing has run then.
        """
        micro = MicroConditioning(
            original_size,
            crops_coords_top_left,
            target_size,
            negative_original_size,
            negative_crops_coords_top_left,
            negative_target_size,
        )
        extras = TextExtras(
            pooled=pooled_prompt_embeds,
            negative_pooled=negative_pooled_prompt_embeds,
            second=prompt_2,
            negative_second=negative_prompt_2,
            micro=micro,
        )
        return super().__call__(*args, extras=extras, **options)

    def _screened(self, pixels: Tensor, engine: Engine) -> tuple[Tensor, list[bool] | None]:
        if self.watermark is not None:
            pixels = self.watermark.apply_watermark(pixels)
        return pixels, None
