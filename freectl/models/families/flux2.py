"""FLUX.2: dev, distilled on guidance; klein's base models, and klein, distilled to a few steps."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.models.chat_text import ChatTextConditioner
from freectl.models.families.packed import PackedFamily
from freectl.models.families.transformer import EVERY_METHOD

_KLEIN = "freectl.pipelines.flux2:FreeControlFlux2KleinPipeline"


@dataclass(frozen=True, kw_only=True)
class Flux2Family(PackedFamily):
    """Its VAE's latents, 2 x 2 of them normalised as one, are the tokens; the text's tokens have places in a row."""

    network: str = "Flux2Transformer2DModel"
    text: type[ChatTextConditioner] = ChatTextConditioner
    cells: int = 1
    axes: int = 4
    entry: str = "norm1"
    finds_words: bool = True

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
        """Values pass one projection with queries, keys and the feed-forward layer, whose result leaves with theirs."""
        depth: Any = network.config.num_single_layers  # type: ignore[union-attr]
        layers = []
        for name in (f"single_transformer_blocks.{i}.attn" for i in range(depth)):
            module: Any = network.get_submodule(name)
            own = {"q": f"{name}.norm_q", "k": f"{name}.norm_k", "v": f"{name}.to_qkv_mlp_proj"}
            how: dict[str, Any] = {
                "channels": {"v": slice(2 * module.inner_dim, 3 * module.inner_dim)},
                "picture_first": False,
                "patch": self.cells,
                "rotate": partial(self._rotated, network),
            }
            text, last = {letter: own[letter] for letter in "kv"}, f"{name}.to_out"
            layers.append(AttentionLayer(name, module.heads, own, text, last, last, beside=True, axis=1, **how))
        return layers

    def structure_blocks(self, depth: int) -> range:
        """The last three fifths of the double-stream blocks: 2 to 4 of klein 4B's five. Not measured for this use."""
        return range(depth * 2 // 5, depth)


FLUX2 = Flux2Family(
    name="flux2",
    pipeline="freectl.pipelines.flux2:FreeControlFlux2Pipeline",
    guidance_scale=4.0,
    guidance="embedded",
    methods=EVERY_METHOD,
    single_files=("flux-2-dev",),
)
KLEIN = Flux2Family(
    name="klein", pipeline=_KLEIN, guidance_scale=4.0, methods=EVERY_METHOD, told={"is_distilled": False}
)
KLEIN_DISTILLED = Flux2Family(
    name="klein-distilled",
    pipeline=_KLEIN,
    guidance_scale=1.0,
    guidance="none",
    told={"is_distilled": True},
)
