"""Chroma: FLUX.1 without pooled text and distilled guidance, whose padding is masked."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.sampler import TEXT_MASK
from freectl.models.families.packed import PackedFamily
from freectl.models.families.transformer import EVERY_METHOD
from freectl.models.sequence_text import ChromaTextConditioner


@dataclass(frozen=True, kw_only=True)
class ChromaFamily(PackedFamily):
    """Told which of the text's tokens count; the picture's all do."""

    def inputs(self, told: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The mask of the text's tokens, (rows, T), followed by that of the picture's."""
        if TEXT_MASK not in told:
            return told
        told = dict(told)
        mask = told.pop(TEXT_MASK)
        count = (size[0] // self.cells) * (size[1] // self.cells)
        ones = torch.ones(mask.shape[0], count, dtype=mask.dtype, device=mask.device)
        return {**told, "attention_mask": torch.cat([mask, ones], 1)}

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """As `PackedFamily.attentions`; diffusers adds the mask, 1 where both tokens count, to the scores."""
        return [replace(layer, uncounted=-1.0) for layer in super().attentions(network)]


CHROMA = ChromaFamily(
    name="chroma",
    network="ChromaTransformer2DModel",
    pipeline="freectl.pipelines.chroma:FreeControlChromaPipeline",
    text=ChromaTextConditioner,
    guidance_scale=5.0,
    methods=EVERY_METHOD,
    finds_words=True,
    single_files=("chroma",),
)
