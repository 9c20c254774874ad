"""`FreeControlFlux2Pipeline` and `FreeControlFlux2KleinPipeline`: the same call for FLUX.2."""

from typing import ClassVar

from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from transformers import AutoProcessor, Mistral3ForConditionalGeneration, Qwen2TokenizerFast, Qwen3ForCausalLM

from freectl.models.sequence_text import DEFAULT_LENGTH
from freectl.pipelines.base import FreeControlMixin


class FreeControlFlux2Pipeline(FreeControlMixin, Flux2Pipeline):
    """Training-free editing for FLUX.2 dev.

    A `Flux2Pipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline` and the family's own;
    `image` is the picture that is edited, not one that is referred to. `guidance_scale` is what the network is told, in
    one row. Latents are normalised ones, (B, 4 C, h / 2, w / 2), in and out.

    Args:
        max_sequence_length: tokens of a text in its message.
    """

    plain_class = "Flux2Pipeline"
    halves_apart = True
    kwargs_argument = "attention_kwargs"
    _callback_tensor_inputs: ClassVar = [
        *Flux2Pipeline._callback_tensor_inputs,
        "negative_prompt_embeds",
    ]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLFlux2,
        text_encoder: Mistral3ForConditionalGeneration,
        tokenizer: AutoProcessor,
        transformer: Flux2Transformer2DModel,
        max_sequence_length: int = DEFAULT_LENGTH,
    ) -> None:
        super().__init__(scheduler, vae, text_encoder, tokenizer, transformer)
        self.register_to_config(max_sequence_length=max_sequence_length)


class FreeControlFlux2KleinPipeline(FreeControlMixin, Flux2KleinPipeline):
    """Training-free editing for FLUX.2 klein, base and distilled, as `FreeControlFlux2Pipeline`.

    The base models are guided by a row of the negative prompt; the distilled ones take no guidance.

    Args:
        max_sequence_length: tokens of a text in its message.
    """

    plain_class = "Flux2KleinPipeline"
    halves_apart = True
    kwargs_argument = "attention_kwargs"
    _callback_tensor_inputs: ClassVar = [
        *Flux2KleinPipeline._callback_tensor_inputs,
        "negative_prompt_embeds",
    ]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLFlux2,
        text_encoder: Qwen3ForCausalLM,
        tokenizer: Qwen2TokenizerFast,
        transformer: Flux2Transformer2DModel,
        is_distilled: bool = False,
        max_sequence_length: int = DEFAULT_LENGTH,
    ) -> None:
        super().__init__(scheduler, vae, text_encoder, tokenizer, transformer, is_distilled)
        self.register_to_config(max_sequence_length=max_sequence_length)
