"""`FreeControlQwenImagePipeline`: the same call for Qwen-Image."""

from typing import Any, ClassVar

from diffusers import QwenImagePipeline

from freectl.pipelines.base import FreeControlMixin


class FreeControlQwenImagePipeline(FreeControlMixin, QwenImagePipeline):
    """Training-free editing for Qwen-Image.

    A `QwenImagePipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline`,
    `attention_kwargs`, and with embeddings `prompt_embeds_mask` and `negative_prompt_embeds_mask` (N, tokens).
    `guidance_scale` is what diffusers calls `true_cfg_scale`. Latents are (B, C, h, w), not packed.
    """

    plain_class = "QwenImagePipeline"
    kwargs_argument = "attention_kwargs"
    text_arguments: ClassVar = {"prompt_embeds_mask": "pooled", "negative_prompt_embeds_mask": "negative_pooled"}
    _callback_tensor_inputs: ClassVar = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "prompt_embeds_mask",
        "negative_prompt_embeds_mask",
    ]

    def _begin(self, guidance_scale: float, steps: int, kwargs: dict[str, Any] | None) -> None:
        super()._begin(guidance_scale, steps, kwargs)
        self._attention_kwargs = kwargs
