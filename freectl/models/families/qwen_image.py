"""Qwen-Image (arXiv 2508.02324): joint attention of picture and text on a flow, latents in tokens of 2 x 2 cells."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.sampler import TEXT_MASK
from freectl.models.families.transformer import (
    EVERY_METHOD,
    FLOW_FREECONTROL,
    TransformerFamily,
    linear_grid,
    packed,
    pooled,
    structure_blocks,
    texts_in,
    times_of,
    unpacked,
)
from freectl.models.language_text import QwenImageTextConditioner

SIDE = 128
"""Latent cells of the side that it was trained at, which its configuration does not say."""
PATCH = 2


@dataclass(frozen=True, kw_only=True)
class QwenImageFamily(TransformerFamily):
    """Qwen-Image; not its editors and layers, whose networks read further pictures."""

    def fits(self, network: Any) -> bool:
        """Whether velocities of the same channels come out, and nothing but picture, time and text goes in."""
        config = network.config
        more = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
        return config.out_channels * PATCH**2 == config.in_channels and not any(config.get(name) for name in more)

    @property
    def looked_for(self) -> str:
        """Class and inputs."""
        return f"{self.name} ({self.network} of one picture)"

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call, told sigma; `added` holds the mask of the text."""
        (rows, _, height, width), (texts, mask) = latents.shape, texts_in(embeds, (added or {})[TEXT_MASK])
        output = network(
            hidden_states=packed(latents),
            timestep=times_of(time, latents).to(latents.dtype) / 1000,
            encoder_hidden_states=texts,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * rows,
            attention_kwargs=attention_kwargs or {},
            return_dict=False,
        )[0]
        return unpacked(output, (height, width))

    def rescaled(self, guided: Tensor, cond: Tensor) -> Tensor:
        """Each token of the guided output with the length of the conditional half's."""
        size, tokens = (guided.shape[-2], guided.shape[-1]), packed(guided)
        return unpacked(tokens * (packed(cond).norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)), size)

    def grid(self, scheduler: Any, network: Any, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """Equal steps, shifted by the picture's size."""
        return linear_grid(scheduler, (size[0] // PATCH) * (size[1] // PATCH), steps)

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """Of a picture of 1024 px with its own autoencoder."""
        return network.config.in_channels // PATCH**2, SIDE, SIDE

    def patch(self, network: Any) -> int:
        """Tokens are squares of 2 x 2 cells."""
        return PATCH

    def read(self, network: nn.Module, value: Tensor, size: tuple[int, int]) -> Tensor:
        """As `TransformerFamily.read`; heads lie behind the tokens."""
        return pooled(value.flatten(2), (size[0] // PATCH, size[1] // PATCH))

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """Of every block, where text and picture have sites of their own."""
        heads: int = network.config.num_attention_heads  # type: ignore[union-attr, assignment]
        layers = []
        for name in (f"transformer_blocks.{block}.attn" for block in range(network.config.num_layers)):  # type: ignore[union-attr, arg-type]
            own = {"q": f"{name}.norm_q", "k": f"{name}.norm_k", "v": f"{name}.to_v"}
            text, last = {"k": f"{name}.norm_added_k", "v": f"{name}.add_v_proj"}, f"{name}.to_out.0"
            layers.append(AttentionLayer(name, heads, own, text, last, last, axis=1, rotate=partial(_rotated, network)))
        return layers

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Normalised keys of the picture's tokens in the middle blocks."""
        blocks = structure_blocks(network.config.num_layers)  # type: ignore[union-attr, arg-type]
        sites = [f"transformer_blocks.{block}.attn.norm_k" for block in blocks]
        return {"all": sites, "first": sites[:1], "last": sites[-1:]}[layers]


def _rotated(network: Any, tokens: Tensor, whose: Literal["picture", "text"], size: tuple[int, int]) -> Tensor:
    shape = [(1, size[0] // PATCH, size[1] // PATCH)]
    picture, text = network.pos_embed(shape, max_txt_seq_len=tokens.shape[2], device=tokens.device)
    turned = apply_rotary_emb_qwen(tokens.transpose(1, 2), picture if whose == "picture" else text, use_real=False)
    return turned.transpose(1, 2)


QWEN_IMAGE = QwenImageFamily(
    name="qwen-image",
    network="QwenImageTransformer2DModel",
    pipeline="freectl.pipelines.qwen_image:FreeControlQwenImagePipeline",
    text=QwenImageTextConditioner,
    guidance_scale=4.0,
    freecontrol=FLOW_FREECONTROL,
    methods=EVERY_METHOD,
    entry="img_norm1",
)
