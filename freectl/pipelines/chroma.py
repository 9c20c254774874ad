"""`FreeControlChromaPipeline`: the same call for Chroma."""

from typing import ClassVar

from diffusers import AutoencoderKL, ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection, T5EncoderModel, T5TokenizerFast

from freectl.models.sequence_text import DEFAULT_LENGTH
from freectl.pipelines.base import FreeControlMixin


class FreeControlChromaPipeline(FreeControlMixin, ChromaPipeline):
    """Training-free editing for Chroma.

    A `ChromaPipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline` and Chroma's own.
    Latents are (B, C, h, w) in and out; packed ones, as callbacks have them, are taken too.

    Args:
        max_sequence_length: tokens of T5.
    """

    plain_class = "ChromaPipeline"
    halves_apart = True
    kwargs_argument = "joint_attention_kwargs"
    text_arguments: ClassVar = {
        "prompt_attention_mask": "pooled",
        "negative_prompt_attention_mask": "negative_pooled",
    }
    _callback_tensor_inputs: ClassVar = [
        *ChromaPipeline._callback_tensor_inputs,
        "negative_prompt_embeds",
    ]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: T5EncoderModel,
        tokenizer: T5TokenizerFast,
        transformer: ChromaTransformer2DModel,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessor = None,
        max_sequence_length: int = DEFAULT_LENGTH,
    ) -> None:
        super().__init__(scheduler, vae, text_encoder, tokenizer, transformer, image_encoder, feature_extractor)
        self.register_to_config(max_sequence_length=max_sequence_length)
