"""`FreeControlFluxPipeline`: the same call for FLUX.1."""

from typing import ClassVar

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    T5EncoderModel,
    T5TokenizerFast,
)

from freectl.models.sequence_text import DEFAULT_LENGTH
from freectl.pipelines.base import FreeControlMixin


class FreeControlFluxPipeline(FreeControlMixin, FluxPipeline):
    """Training-free editing for FLUX.1 dev and schnell.

    A `FluxPipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline` and FLUX's own. On dev
    `guidance_scale` is what the network is told, in one row; schnell takes none. Latents are (B, C, h, w) in and out;
    packed ones, as callbacks have them, are taken too.

    Args:
        max_sequence_length: tokens of T5.
    """

    plain_class = "FluxPipeline"
    halves_apart = True
    kwargs_argument = "joint_attention_kwargs"
    text_arguments: ClassVar = {
        "prompt_2": "second",
        "negative_prompt_2": "negative_second",
        "pooled_prompt_embeds": "pooled",
        "negative_pooled_prompt_embeds": "negative_pooled",
        "true_cfg_scale": "true_scale",
    }
    _callback_tensor_inputs: ClassVar = [
        *FluxPipeline._callback_tensor_inputs,
        "pooled_prompt_embeds",
        "negative_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        text_encoder_2: T5EncoderModel,
        tokenizer_2: T5TokenizerFast,
        transformer: FluxTransformer2DModel,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessor = None,
        max_sequence_length: int = DEFAULT_LENGTH,
    ) -> None:
        super().__init__(
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            text_encoder_2,
            tokenizer_2,
            transformer,
            image_encoder,
            feature_extractor,
        )
        self.register_to_config(max_sequence_length=max_sequence_length)
