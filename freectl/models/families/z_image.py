"""Z-Image and Z-Image-Turbo (arXiv 2511.22699): one stream of picture and text on a flow whose time runs backwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer
from freectl.denoising.sampler import TEXT_MASK
from freectl.models.families.transformer import (
    FLOW_FREECONTROL,
    PATH_METHODS,
    TransformerFamily,
    linear_grid,
    pooled,
    times_of,
)
from freectl.models.language_text import ZImageTextConditioner

SIDE = 128
"""Latent cells of the side that it was trained at, which its configuration does not say."""
PATCH = 2
FILLED = 32
"""Tokens of a picture are filled up to a multiple of this number, the text's too."""
TURBO_SHIFT = 3.0
"""The shift that Z-Image-Turbo is published with; its transformer's configuration is Z-Image's own."""


@dataclass(frozen=True, kw_only=True)
class ZImageFamily(TransformerFamily):
    """Z-Image; not its Omni form, whose network reads pictures beside the text."""

    def fits(self, network: Any) -> bool:
        """Whether it takes patches of 2 x 2 cells, and no pictures beside the text."""
        config = network.config
        return PATCH in config.all_patch_size and 1 in config.all_f_patch_size and config.siglip_feat_dim is None

    @property
    def looked_for(self) -> str:
        """Class and inputs."""
        return f"{self.name} ({self.network} of patches of 2 x 2, without siglip_feat_dim)"

    def described(self, network: Any) -> str:
        """Class, blocks, patches, and whether it reads pictures."""
        config = network.config
        more = ", which reads pictures beside the text" if config.siglip_feat_dim is not None else ""
        return f"a {self.network} with {config.n_layers} blocks and patches of {list(config.all_patch_size)}{more}"

    def few_steps(self, index: Mapping[str, Any], schedule: Mapping[str, Any]) -> bool:
        """What the index says of `step_distilled`; else whether the scheduler has the shift of Z-Image-Turbo."""
        said = index.get("step_distilled")
        fixed = not schedule.get("use_dynamic_shifting") and schedule.get("shift") == TURBO_SHIFT
        return fixed if said is None else bool(said)

    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call, told 1 - sigma, of whose output the sign is turned; `added` holds the mask of the text."""
        mask = (added or {})[TEXT_MASK]
        output = network(
            x=list(latents[:, :, None].unbind(0)),
            t=(1000 - times_of(time, latents)) / 1000,
            cap_feats=[text[: int(length)] for text, length in zip(embeds, mask.sum(1), strict=True)],
            joint_attention_kwargs=attention_kwargs,
            return_dict=False,
        )[0]
        return -torch.stack(output)[:, :, 0]

    def grid(self, scheduler: Any, network: Any, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """Equal steps, shifted by the picture's size where the scheduler asks for it."""
        return linear_grid(scheduler, (size[0] // PATCH) * (size[1] // PATCH), steps)

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """Of a picture of 1024 px with its own autoencoder."""
        return network.config.in_channels, SIDE, SIDE

    def patch(self, network: Any) -> int:
        """Tokens are squares of 2 x 2 cells."""
        return PATCH

    def largest(self, network: Any) -> int | None:
        """Positions are stored for `axes_lens` tokens a side."""
        return min(network.config.axes_lens[1:]) * PATCH

    def read(self, network: nn.Module, value: Tensor, size: tuple[int, int]) -> Tensor:
        """As `TransformerFamily.read`; the picture's tokens are the first, heads lie behind them."""
        grid = (size[0] // PATCH, size[1] // PATCH)
        return pooled(value.flatten(2)[:, : grid[0] * grid[1]], grid)

    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Keys in blocks 8 to 15 of 30, and the like share of other depths, normalised where they are."""
        depth: int = network.config.n_layers  # type: ignore[union-attr, assignment]
        leaf = "norm_k" if network.config.qk_norm else "to_k"  # type: ignore[union-attr]
        blocks = range(depth * 8 // 30, depth * 15 // 30 + 1)
        sites = [f"layers.{block}.attention.{leaf}" for block in blocks]
        return {"all": sites, "first": sites[:1], "last": sites[-1:]}[layers]

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """The blocks in which picture and text are one sequence; not those in which the picture is alone before."""
        found = []
        for block in range(network.config.n_layers):  # type: ignore[union-attr, arg-type]
            name = f"layers.{block}.attention"
            leaf = "norm_{}" if network.config.qk_norm else "to_{}"  # type: ignore[union-attr]
            sites = {letter: f"{name}.{leaf.format(letter)}" for letter in "qk"} | {"v": f"{name}.to_v"}
            text = {letter: sites[letter] for letter in "kv"}
            heads: int = network.config.n_heads  # type: ignore[union-attr, assignment]
            layout = {"axis": 1, "multiple": FILLED, "patch": PATCH}
            found.append(AttentionLayer(name, heads, sites, text, **layout))  # type: ignore[arg-type]
        return found

    def word_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """None: texts of a batch differ in length, and what fills them up would be read."""
        return []


Z_IMAGE = ZImageFamily(
    name="z-image",
    network="ZImageTransformer2DModel",
    pipeline="freectl.pipelines.z_image:FreeControlZImagePipeline",
    text=ZImageTextConditioner,
    guidance_scale=6.0,
    freecontrol=FLOW_FREECONTROL,
    methods=(*PATH_METHODS, "freecontrol", "pnp"),
    wide_latents=True,
)
