"""`FreeControlZImagePipeline`: the same call for Z-Image and Z-Image-Turbo."""

from typing import Any, ClassVar

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import AutoTokenizer, PreTrainedModel

from freectl.pipelines.base import FreeControlMixin


class FreeControlZImagePipeline(FreeControlMixin, ZImagePipeline):
    """Training-free editing for Z-Image and Z-Image-Turbo.

    A `ZImagePipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline`,
    `joint_attention_kwargs`, and with embeddings, (N, tokens, C) in one tensor, `prompt_embeds_mask` and
    `negative_prompt_embeds_mask` (N, tokens). `guidance_scale` is that of all models, where 1 is none: one more than
    diffusers' number for this one.

    Args:
        step_distilled: whether the weights are distilled to few steps, as Z-Image-Turbo's are; None = as the
            scheduler's shift says.
    """

    plain_class = "ZImagePipeline"
    kwargs_argument = "joint_attention_kwargs"
    text_arguments: ClassVar = {"prompt_embeds_mask": "pooled", "negative_prompt_embeds_mask": "negative_pooled"}
    _callback_tensor_inputs: ClassVar = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "prompt_embeds_mask",
        "negative_prompt_embeds_mask",
    ]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: AutoTokenizer,
        transformer: ZImageTransformer2DModel,
        step_distilled: bool | None = None,
    ) -> None:
        super().__init__(scheduler, vae, text_encoder, tokenizer, transformer)
        self.register_to_config(step_distilled=step_distilled)

    def _begin(self, guidance_scale: float, steps: int, kwargs: dict[str, Any] | None) -> None:
        super()._begin(guidance_scale, steps, kwargs)
        self._joint_attention_kwargs = kwargs
