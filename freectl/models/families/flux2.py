"""FLUX.2: dev, distilled on guidance; klein's base models, and klein, distilled to a few steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer, Part
from freectl.models.chat_text import ChatTextConditioner
from freectl.models.families.packed import PackedFamily

_KLEIN = "freectl.pipelines.flux2:FreeControlFlux2KleinPipeline"


@dataclass(frozen=True, kw_only=True)
class Flux2Family(PackedFamily):
    """Its VAE's latents, 2 x 2 of them normalised as one, are the tokens; the text's tokens have places in a row."""

    network: str = "Flux2Transformer2DModel"
    text: type[ChatTextConditioner] = ChatTextConditioner
    cells: int = 1
    axes: int = 4

    def text_places(self, tokens: int, device: torch.device) -> Tensor:
        """One after another on the last axis."""
        places = super().text_places(tokens, device)
        places[:, -1] = torch.arange(tokens, device=device)
        return places

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float:
        """Mu by tokens and by steps: between what was fitted for 10 and for 200, above 4300 tokens that for 200.

        As the family's own pipelines have it (diffusers' `compute_empirical_mu`).
        """
        many = 0.00016927 * tokens + 0.45666666
        if tokens > 4300:
            return many
        few = 8.73809524e-05 * tokens + 1.89833333
        slope = (many - few) / 190.0
        return slope * steps + (many - 200.0 * slope)

    def single_attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """None: what they read leaves them mixed with what their other half makes of the tokens."""
        return []

    def pnp_sites(self, network: nn.Module) -> tuple[str | None, tuple[str, ...]]:
        """Queries and keys of the single-stream blocks too."""
        return None, (*super().pnp_sites(network)[1], *_single_sites(network))

    def parts(self, network: nn.Module, size: tuple[int, int]) -> Mapping[str, Part]:
        """Of these as well."""
        picture = Part(1, -size[0] * size[1], None)
        return {**super().parts(network, size), **dict.fromkeys(_single_sites(network), picture)}

    def structure_blocks(self, depth: int) -> range:
        """The last three fifths of the double-stream blocks: 2 to 4 of klein 4B's five. Not measured for this use."""
        return range(depth * 2 // 5, depth)


def _single_sites(network: Any) -> list[str]:
    blocks = range(network.config.num_single_layers)
    return [f"single_transformer_blocks.{i}.attn.norm_{letter}" for i in blocks for letter in "qk"]


FLUX2 = Flux2Family(
    name="flux2",
    pipeline="freectl.pipelines.flux2:FreeControlFlux2Pipeline",
    guidance_scale=4.0,
    guidance="embedded",
    single_files=("flux-2-dev",),
)
KLEIN = Flux2Family(name="klein", pipeline=_KLEIN, guidance_scale=4.0, told={"is_distilled": False})
KLEIN_DISTILLED = Flux2Family(
    name="klein-distilled",
    pipeline=_KLEIN,
    guidance_scale=1.0,
    guidance="none",
    told={"is_distilled": True},
)
