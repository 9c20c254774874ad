"""Chroma: FLUX.1 without pooled text and distilled guidance, whose padding is masked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from freectl.models.families.packed import PackedFamily
from freectl.models.sequence_text import ChromaTextConditioner


@dataclass(frozen=True, kw_only=True)
class ChromaFamily(PackedFamily):
    """Told which of the text's tokens count; the picture's all do."""

    def inputs(self, told: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The mask of the text's tokens, (rows, T), followed by that of the picture's."""
        mask = told.get("attention_mask")
        if mask is None:
            return told
        count = (size[0] // self.cells) * (size[1] // self.cells)
        ones = torch.ones(mask.shape[0], count, dtype=mask.dtype, device=mask.device)
        return {**told, "attention_mask": torch.cat([mask, ones], 1)}


CHROMA = ChromaFamily(
    name="chroma",
    network="ChromaTransformer2DModel",
    pipeline="freectl.pipelines.chroma:FreeControlChromaPipeline",
    text=ChromaTextConditioner,
    guidance_scale=5.0,
    single_files=("chroma",),
)
