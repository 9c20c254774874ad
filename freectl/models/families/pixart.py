"""PixArt-Sigma (arXiv 2403.04692): a transformer with cross-attention to the text that predicts noise."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.sampler import TEXT_MASK
from freectl.models.families.transformer import (
    EVERY_METHOD,
    TransformerFamily,
    structure_blocks,
    times_of,
)
from freectl.models.families.unet import PUBLISHED_FREECONTROL, attention_layer
from freectl.models.t5_text import T5TextConditioner


@dataclass(frozen=True, kw_only=True)
class PixArtFamily(TransformerFamily):
    """PixArt-Sigma; of its outputs the half that is a learned variance is left out, as all its samplers do."""

    def fits(self, network: Any) -> bool:
        """Whether noise comes out, perhaps with its variance, and no sizes go in, as they do in PixArt-alpha."""
        config = network.config
        channels = (config.in_channels, 2 * config.in_channels)
        return config.out_channels in channels and not network.use_additional_conditions

    @property
    def looked_for(self) -> str:
        """Class and inputs."""
        return f"{self.name} ({self.network} without resolution inputs, noise and its variance out)"

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call, told the time itself; `added` holds the mask of the text."""
        output = network(
            hidden_states=latents,
            timestep=times_of(time, latents),
            encoder_hidden_states=embeds,
            encoder_attention_mask=(added or {})[TEXT_MASK].to(embeds.device),
            cross_attention_kwargs=attention_kwargs,
            return_dict=False,
        )[0]
        return output[:, : latents.shape[1]]

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """From the transformer's configuration."""
        config = network.config
        return config.in_channels, config.sample_size, config.sample_size

    def patch(self, network: Any) -> int:
        """The patch size."""
        return network.config.patch_size

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Keys of the middle blocks' self-attention."""
        blocks = structure_blocks(network.config.num_layers)  # type: ignore[union-attr, arg-type]
        sites = [f"transformer_blocks.{block}.attn1.to_k" for block in blocks]
        return {"all": sites, "first": sites[:1], "last": sites[-1:]}[layers]

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """The first attention of each block."""
        return _layers(network, ".attn1")

    def cross_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """The second attention of each block."""
        return _layers(network, ".attn2")


def _layers(network: nn.Module, leaf: str) -> list[AttentionLayer]:
    return [attention_layer(network, name) for name, _ in network.named_modules() if name.endswith(leaf)]


PIXART = PixArtFamily(
    name="pixart",
    network="PixArtTransformer2DModel",
    pipeline="freectl.pipelines.pixart:FreeControlPixArtPipeline",
    text=T5TextConditioner,
    guidance_scale=4.5,
    freecontrol=PUBLISHED_FREECONTROL,
    methods=EVERY_METHOD,
    flow=False,
    entry="norm1",
    attention="attn1",
)
