"""`FreeControlPixArtPipeline`: the same call for PixArt-Sigma."""

from typing import ClassVar

from diffusers import AutoencoderKL, PixArtSigmaPipeline, PixArtTransformer2DModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import T5EncoderModel, T5Tokenizer

from freectl.denoising.schedules import ddim
from freectl.pipelines.base import FreeControlMixin


class FreeControlPixArtPipeline(FreeControlMixin, PixArtSigmaPipeline):
    """Training-free editing for PixArt-Sigma.

    A `PixArtSigmaPipeline` in all but `__call__`, which takes the arguments of `FreeControlPipeline`, callbacks too,
    and `prompt_attention_mask` and `negative_prompt_attention_mask` (N, tokens) with embeddings. Sizes are the
    pictures' own, not those of a table, and texts are not rewritten (`clean_caption`). Any scheduler is replaced by
    DDIM.
    """

    plain_class = "PixArtSigmaPipeline"
    text_arguments: ClassVar = {
        "prompt_attention_mask": "pooled",
        "negative_prompt_attention_mask": "negative_pooled",
    }
    _callback_tensor_inputs: ClassVar = [
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "prompt_embeds_mask",
        "negative_prompt_embeds_mask",
    ]

    def __init__(
        self,
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKL,
        transformer: PixArtTransformer2DModel,
        scheduler: KarrasDiffusionSchedulers,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, None if scheduler is None else ddim(scheduler))
