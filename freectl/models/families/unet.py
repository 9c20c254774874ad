"""What families on a `UNet2DConditionModel` share: how it is called, and its attention layers by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.injection import projections
from freectl.denoising.taps import TapError
from freectl.errors import InputError
from freectl.models.families.base import CtrlXSites, Family


def unet_call(
    network: nn.Module,
    latents: Tensor,
    time: float | Tensor,
    embeds: Tensor,
    added: dict[str, Tensor] | None = None,
    attention_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """One call of a UNet, told the time itself; see `freectl.denoising.sampler.Call`."""
    return network(
        latents,
        time,
        encoder_hidden_states=embeds,
        cross_attention_kwargs=attention_kwargs,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


@dataclass(frozen=True)
class CtrlXLayers:
    """Where Ctrl-X taps a UNet (arXiv 2406.07540); module names or the beginnings of such.

    Attributes:
        feature: the residual block whose output is injected.
        structure: attentions whose self-attention queries and keys are injected.
        appearance: attentions whose input takes over the appearance's statistics.
    """

    feature: str
    structure: tuple[str, ...]
    appearance: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UNetFamily(Family):
    """A family of UNets.

    Attributes:
        structure_block: the decoder block whose self-attention keys are tapped (arXiv 2312.07536, section 4).
        ctrlx: Ctrl-X's layers.
        levels: resolutions of the UNet.
        word_blocks: encoder and decoder blocks whose cross-attention tells where a word is, at one resolution: the
            16 x 16 of arXiv 2208.01626 in Stable Diffusion, its like in the others.
        addition: `addition_embed_type` of the UNet's configuration: inputs besides text and time.
        side: of the latents where the UNet's configuration names none; as diffusers' pipelines have it.
    """

    component: str = "unet"
    structure_block: str
    ctrlx: CtrlXLayers
    levels: int
    word_blocks: tuple[str, str]
    addition: str | None = None
    side: int = 64
    control_networks: Mapping[str, str] = field(
        default_factory=lambda: {"controlnet": "ControlNetModel", "t2i-adapter": "T2IAdapter"}
    )

    def fits(self, network: Any) -> bool:
        """Whether a UNet has this family's levels and inputs, and self-attention in the tapped block."""
        config = network.config
        return (
            len(config.block_out_channels) == self.levels
            and config.get("addition_embed_type") == self.addition
            and config.in_channels == config.out_channels
            and self.structure_block in blocks_with_self_attention(network)
        )

    def described(self, network: Any) -> str:
        """Levels, channels, added inputs, and the blocks with self-attention."""
        config, extra = network.config, network.config.get("addition_embed_type")
        blocks = ", ".join(blocks_with_self_attention(network)) or "no block"
        return (
            f"a UNet with {len(config.block_out_channels)} levels, {config.in_channels} channels in and "
            f"{config.out_channels} out{f', {extra} inputs' if extra else ''}, self-attention in {blocks}"
        )

    @property
    def looked_for(self) -> str:
        """What `fits` asks of a UNet, in words."""
        extra = f", {self.addition} inputs" if self.addition else ""
        return f"{self.name} ({self.levels} levels{extra}, self-attention in {self.structure_block})"

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """As `unet_call`."""
        return unet_call(network, latents, time, embeds, added, attention_kwargs)

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """From the UNet's configuration."""
        side = self.side if network.config.sample_size is None else network.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return network.config.in_channels, int(height), int(width)

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Self-attention keys of the structure block; with "block", its queries and residual outputs too."""
        keys = self_attention_keys(network, self.structure_block)
        keys = {"all": keys, "first": keys[:1], "last": keys[-1:]}[layers]
        return keys if features == "keys" else block_sites(network, self.structure_block, keys)

    def read(self, network: nn.Module, value: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (rows, C, h, w) of residual blocks as tokens; attention's are that already."""
        return value if value.dim() == 3 else value.flatten(2).transpose(1, 2)

    def concept_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Cross-attentions of the structure block."""
        pairs = cross_attention_sites(network, self.structure_block)
        return [attention_layer(network, query.removesuffix(".to_q")) for query, _ in pairs]

    def word_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Cross-attentions of the word blocks; blocks without any add none."""
        layers = [replace(one, framed=self.framed) for one in self.cross_layers(network)]
        return [one for block in self.word_blocks for one in layers if one.name.startswith(f"{block}.")]

    def self_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Of `self_attentions`."""
        return [attention_layer(network, name) for name in self_attentions(network)]

    def cross_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Of `cross_attentions`."""
        return [attention_layer(network, name) for name in cross_attentions(network)]

    def pnp_sites(self, network: nn.Module) -> tuple[str, tuple[str, ...]]:
        """As `pnp_sites`, from the structure block on."""
        return pnp_sites(network, self.structure_block)

    def ctrlx_sites(self, network: nn.Module) -> CtrlXSites:
        """Of the family's Ctrl-X layers; a self-attention's input is the norm before it."""
        inside = attentions_under(network, self.ctrlx.structure)
        moved = attentions_under(network, self.ctrlx.appearance)
        inputs = {layer: f"{layer.removesuffix('attn1')}norm1" for layer in moved}
        return CtrlXSites((self.ctrlx.feature, *projections(inside, "qk")), inputs)


def attention_layer(unet: nn.Module, name: str) -> AttentionLayer:
    """A UNet's layer by its name: the picture's attention to itself (`attn1`), or to the text (`attn2`)."""
    heads: Any = unet.get_submodule(name).heads
    query, key, value = ({letter: f"{name}.to_{letter}"} for letter in "qkv")
    picture, text = (query, key | value) if name.endswith(".attn2") else (query | key | value, {})
    return AttentionLayer(name, heads, picture, text, output=name, projection=f"{name}.to_out.0")


def pnp_sites(unet: nn.Module, block: str) -> tuple[str, tuple[str, ...]]:
    """The feature site and the query and key sites of Plug-and-Play.

    Features: the second residual block of the first decoder block with attention, before the skip is added.
    Attention: every decoder self-attention behind it. In Stable Diffusion these are up_blocks.1.resnets.1 and the
    decoder's layers 4 to 11, as published.

    Args:
        block: the first decoder block with attention.

    Raises:
        InputError: the UNet has no such layers.
    """
    decoder = [name for name in self_attentions(unet) if name.startswith("up_blocks.")]
    first = [name for name in decoder if name.startswith(f"{block}.attentions.0.")]
    layers = decoder[decoder.index(first[-1]) + 1 :] if first else []
    if not layers:
        raise InputError("--method", "pnp on a UNet without two self-attentions in its decoder", "another model")
    return f"{block}.resnets.1.conv2", projections(layers, "qk")


def attentions_under(unet: nn.Module, prefixes: Sequence[str]) -> list[str]:
    """Self-attentions under the modules named, in execution order.

    Raises:
        InputError: there are none under one of them.
    """
    layers = self_attentions(unet)
    for prefix in prefixes:
        if not any(layer.startswith(f"{prefix}.") for layer in layers):
            raise InputError("--method", f"ctrlx on a UNet without self-attention in {prefix}", "another model")
    return [layer for layer in layers if any(layer.startswith(f"{prefix}.") for prefix in prefixes)]


def self_attentions(unet: nn.Module) -> list[str]:
    """Names of all self-attention layers in execution order: encoder, middle, decoder."""
    return _attentions(unet, ".attn1")


def cross_attentions(unet: nn.Module) -> list[str]:
    """Names of all cross-attention layers in execution order."""
    return _attentions(unet, ".attn2")


def _attentions(unet: nn.Module, suffix: str) -> list[str]:
    names = [name for name, _ in unet.named_modules() if name.endswith(suffix)]
    # the middle block is registered last, though it runs before the decoder
    return [name for part in ("down_blocks.", "mid_block.", "up_blocks.") for name in names if name.startswith(part)]


def self_attention_keys(unet: nn.Module, block: str) -> list[str]:
    """Names of all self-attention `to_k` under exactly the module `block`, in execution order.

    Raises:
        TapError: the block has none; the message lists the blocks that have.
    """
    return _attention_layers(unet, block, ".attn1.to_k")


def block_sites(unet: nn.Module, block: str, keys: Sequence[str]) -> list[str]:
    """Keys and queries of a decoder block's self-attentions, and what its residual blocks add, in execution order.

    Args:
        keys: `to_k` of the attentions; the residual block of an attention module is the one before it.
    """
    modules, sites = dict(unet.named_modules()), []
    for key in keys:
        index = key.removeprefix(f"{block}.attentions.").partition(".")[0]
        residual = f"{block}.resnets.{index}.conv2"
        if residual in modules and residual not in sites:
            sites.append(residual)
        sites += [f"{key.removesuffix('to_k')}to_q", key]
    return sites


def cross_attention_sites(unet: nn.Module, block: str) -> list[tuple[str, str]]:
    """Pairs (to_q, to_k) of all cross-attention layers under exactly the module `block`, in execution order.

    Raises:
        TapError: the block has none; the message lists the blocks that have.
    """
    return [(key.removesuffix("to_k") + "to_q", key) for key in _attention_layers(unet, block, ".attn2.to_k")]


def _attention_layers(unet: nn.Module, block: str, suffix: str) -> list[str]:
    names = [name for name, _ in unet.named_modules() if name.endswith(suffix)]
    found = [name for name in names if name.startswith(f"{block}.")]
    if not found:
        blocks = sorted({name.partition(".attentions.")[0] for name in names})
        raise TapError(f"block '{block}' has no layer *{suffix}; blocks that have: {', '.join(blocks) or 'none'}")
    return found


def blocks_with_self_attention(unet: nn.Module) -> list[str]:
    """The blocks whose layers attend to themselves."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn1.to_k")]
    return sorted({name.partition(".attentions.")[0] for name in names})


PUBLISHED_FREECONTROL: dict[str, float | str] = {"appearance_weight": 0.1, "features": "keys", "layers": "all"}
"""Of the published interface, for Stable Diffusion."""
