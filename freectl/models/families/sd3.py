"""Stable Diffusion 3 and 3.5: joint attention of picture and text on a flow (arXiv 2403.03206)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.models.families.transformer import (
    EVERY_METHOD,
    FLOW_FREECONTROL,
    TransformerFamily,
    shift_of,
    structure_blocks,
    times_of,
)
from freectl.models.joint_text import JointTextConditioner


@dataclass(frozen=True, kw_only=True)
class SD3Family(TransformerFamily):
    """SD3-medium, 3.5-medium (whose first blocks have a second attention of the picture alone) and 3.5-large."""

    def fits(self, network: Any) -> bool:
        """Whether as many channels come out as go in."""
        return network.config.out_channels == network.config.in_channels

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call, told 1000 sigma; `added` holds `pooled_projections` (rows, C)."""
        return network(
            hidden_states=latents,
            timestep=times_of(time, latents),
            encoder_hidden_states=embeds,
            joint_attention_kwargs=attention_kwargs,
            return_dict=False,
            **(added or {}),
        )[0]

    def grid(self, scheduler: Any, network: Any, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """The shift of the picture's size, where the scheduler asks for one."""
        if not scheduler.config.get("use_dynamic_shifting"):
            return {}
        patch = self.patch(network)
        return {"mu": shift_of(scheduler, (size[0] // patch) * (size[1] // patch), max_shift=1.16)}

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """From the transformer's configuration."""
        config = network.config
        return config.in_channels, config.sample_size, config.sample_size

    def patch(self, network: Any) -> int:
        """The patch size."""
        return network.config.patch_size

    def largest(self, network: Any) -> int | None:
        """Positions are stored for `pos_embed_max_size` tokens a side."""
        return network.config.pos_embed_max_size * network.config.patch_size

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Keys of the picture's tokens in the middle blocks, of its own attention where there is one.

        Whatever the features: these blocks have no residual blocks.
        """
        blocks = structure_blocks(network.config.num_layers)  # type: ignore[union-attr, arg-type]
        sites = [_keys(network, f"transformer_blocks.{block}") for block in blocks]
        return {"all": sites, "first": sites[:1], "last": sites[-1:]}[layers]

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """Of each block that of picture and text together, and that of the picture alone where there is one."""
        modules = dict(network.named_modules())
        names = [f"transformer_blocks.{i}.{leaf}" for i in range(_depth(network)) for leaf in ("attn", "attn2")]
        return [_attention(modules, name) for name in names if name in modules]


def _depth(network: Any) -> int:
    return network.config.num_layers


def _attention(modules: dict[str, nn.Module], name: str) -> AttentionLayer:
    """A layer whose queries and keys are seen behind their norms, where it has such; heads are the second axis then."""
    site = {letter: f"{name}.norm_{letter}" for letter in "qk" if f"{name}.norm_{letter}" in modules}
    picture = {letter: site.get(letter, f"{name}.to_{letter}") for letter in "qkv"}
    text = {}
    if f"{name}.add_k_proj" in modules:
        normed = f"{name}.norm_added_k"
        text = {"k": normed if normed in modules else f"{name}.add_k_proj", "v": f"{name}.add_v_proj"}
    heads: Any = modules[name].heads
    last = f"{name}.to_out.0"
    return AttentionLayer(name, heads, picture, text, output=last, projection=last)


def _keys(network: nn.Module, block: str) -> str:
    modules = dict(network.named_modules())
    layer = f"{block}.attn2" if f"{block}.attn2" in modules else f"{block}.attn"
    return f"{layer}.norm_k" if f"{layer}.norm_k" in modules else f"{layer}.to_k"


SD3 = SD3Family(
    name="sd3",
    network="SD3Transformer2DModel",
    methods=EVERY_METHOD,
    entry="norm1.norm",
    pipeline="freectl.pipelines.sd3:FreeControl3Pipeline",
    text=JointTextConditioner,
    guidance_scale=7.0,
    freecontrol=FLOW_FREECONTROL,
    control_networks={"controlnet": "SD3ControlNetModel"},
    single_files=("sd3", "sd35_medium", "sd35_large"),
)
