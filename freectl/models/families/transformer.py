"""What families on diffusion transformers share: tokens of patches, blocks in a row, flow matching."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy import linspace
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_shuffle, pixel_unshuffle

from freectl.denoising.attention_layers import AttentionLayer, Part, picture_sites
from freectl.errors import InputError
from freectl.models.families.base import CtrlXSites, Family

PATH_METHODS = ("sdedit", "flowedit", "ddpm-inversion", "rf-inversion")
"""Methods that need nothing of a network but its output."""
ATTENTION_METHODS = ("pnp", "p2p", "masactrl")
"""Methods that read and replace what passes `TransformerFamily.attentions`."""
EVERY_METHOD = (*PATH_METHODS, "freecontrol", *ATTENTION_METHODS, "ctrlx")
"""What runs where attentions, words and `TransformerFamily.entry` are stated."""

FINEST = 32
"""Tokens a side at which structure is compared: those of Stable Diffusion XL at 1024 px; finer grids copy too much."""
LAST_LEVEL = 0.54
"""Sigma down to which structure is guided: where the published window of 60 % ends on Stable Diffusion's schedule."""
FLOW_FREECONTROL: dict[str, float | str] = {
    "appearance_weight": 0.1,
    "features": "keys",
    "layers": "all",
    "window_level": LAST_LEVEL,
}


@dataclass(frozen=True, kw_only=True)
class TransformerFamily(Family):
    """A family of diffusion transformers.

    Attributes:
        entry: inside a block the module whose output, of the picture's tokens alone, goes into its attention.
        attention: inside a block that attention.
    """

    component: str = "transformer"
    methods: tuple[str, ...] | None = (*PATH_METHODS, "freecontrol")
    flow: bool = True
    pnp: Mapping[str, float] = field(default_factory=lambda: {"feature_stop": 0.0, "attention_stop": 0.2})
    entry: str = ""
    attention: str = "attn"

    def described(self, network: Any) -> str:
        """Class, blocks and channels."""
        config = network.config
        return (
            f"a {self.network} with {config.num_layers} blocks, {config.in_channels} channels in and "
            f"{config.out_channels or config.in_channels} out"
        )

    @property
    def looked_for(self) -> str:
        """The class alone: depth and width are free."""
        return f"{self.name} ({self.network})"

    def read(self, network: nn.Module, value: Tensor, size: tuple[int, int]) -> Tensor:
        """Of the picture's tokens, heads side by side; neighbours averaged where the grid is finer than `FINEST`."""
        patch = self.patch(network)
        grid = (size[0] // patch, size[1] // patch)
        return pooled(self.image_tokens(value, grid[0] * grid[1]), grid)

    def image_tokens(self, value: Tensor, count: int) -> Tensor:
        """What an attention's projection or norm gives, for the picture's `count` tokens alone: (rows, count, C)."""
        features = value if value.dim() == 3 else value.transpose(1, 2).flatten(2)
        return features[:, :count]

    def attentions(self, network: nn.Module) -> list[AttentionLayer]:
        """All layers in which the picture attends to itself, with the text's sites where also to it; as they run.

        None unless a family says where tokens pass; methods of `ATTENTION_METHODS` and masks of words need them.
        """
        return []

    def self_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """All of `attentions`."""
        return self.attentions(network)

    def cross_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Those of `attentions` that have text."""
        return [layer for layer in self.attentions(network) if layer.text]

    def word_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Attentions to the text in the blocks of the structure sites."""
        blocks = tuple(f"{site.rsplit('.', 2)[0]}." for site in self.structure_sites(network))
        return [layer for layer in self.cross_layers(network) if layer.name.startswith(blocks)]

    def concept_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """As `word_layers`."""
        return self.word_layers(network)

    def parts(self, network: nn.Module, size: tuple[int, int]) -> Mapping[str, Part]:
        """Of all sites of `attentions`."""
        pairs = [(layer, letter) for layer in self.attentions(network) for letter in layer.picture]
        return {layer.picture[letter]: layer.part(letter, size) for layer, letter in pairs}

    def pnp_sites(self, network: nn.Module) -> tuple[str | None, tuple[str, ...]]:
        """The picture's queries and keys in all layers (arXiv 2508.07519); there are no residual blocks."""
        return None, picture_sites(self.attentions(network), "qk")

    def ctrlx_sites(self, network: nn.Module) -> CtrlXSites:
        """Queries and keys of the structure blocks; statistics at the inputs of these and as many behind them.

        The published layers are a UNet's: which blocks these should be is not measured.
        """
        if not self.entry:
            raise InputError("--method", f"ctrlx on {self.name}, whose layers' inputs are not tapped", "another method")
        depth: int = network.config.num_layers  # type: ignore[union-attr, assignment]
        stem, numbers = "transformer_blocks", [int(site.split(".")[1]) for site in self.structure_sites(network)]
        inside = [
            layer for layer in self.attentions(network) if layer.name.startswith(tuple(f"{stem}.{i}." for i in numbers))
        ]
        moved = range(numbers[0], min(depth, numbers[-1] + 1 + len(numbers)))
        entries = {f"{stem}.{i}.{self.attention}": f"{stem}.{i}.{self.entry}" for i in moved}
        return CtrlXSites(picture_sites(inside, "qk"), entries)


def structure_blocks(depth: int) -> range:
    """The blocks that carry layout: 5 to 9 of 24, 16 to 24 of 38, and the like share of other depths.

    Word maps are best there (arXiv 2508.07519, on SD3-medium, 3.5-medium and 3.5-large).
    """
    if depth == 38:
        return range(16, 25)
    first, last = depth * 5 // 24, depth * 9 // 24
    return range(first, last + 1)


def pooled(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features (rows, tokens, C) of a grid (height, width), its 2 x 2 means taken while a side has over `FINEST`."""
    while max(grid) > FINEST:
        squares = features.transpose(1, 2).unflatten(2, grid)
        squares = avg_pool2d(squares, 2, ceil_mode=True, count_include_pad=False)
        features, grid = squares.flatten(2).transpose(1, 2), (squares.shape[-2], squares.shape[-1])
    return features


def texts_in(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embeddings (rows, tokens, C) cut behind the longest text, and their mask if some are shorter.

    Args:
        mask: (rows, tokens), true where a token is of the text.
    """
    longest = int(mask.any(0).nonzero().amax()) + 1
    embeds, mask = embeds[:, :longest], mask[:, :longest]
    return embeds, None if bool(mask.all()) else mask.to(embeds.device)


def packed(latents: Tensor, cells: int = 2) -> Tensor:
    """Latents (B, C, h, w) as tokens of `cells` x `cells` cells, (B, h w / cells^2, cells^2 C)."""
    return pixel_unshuffle(latents, cells).flatten(2).transpose(1, 2)


def unpacked(tokens: Tensor, size: tuple[int, int], cells: int = 2) -> Tensor:
    """The inverse of `packed` for latents of `size` (height, width)."""
    return pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (size[0] // cells, size[1] // cells)), cells)


def linear_grid(scheduler: Any, tokens: int, steps: int, shift: float | None = None) -> dict[str, Any]:
    """Levels from 1 down to 1 / steps in equal steps, and the shift of a picture of so many tokens, for a scheduler.

    Args:
        shift: in place of the scheduler's own for so many tokens.
    """
    mu = shift_of(scheduler, tokens) if shift is None else shift
    return {"sigmas": [float(level) for level in linspace(1.0, 1 / steps, steps)], "mu": mu}


def times_of(time: float | Tensor, latents: Tensor) -> Tensor:
    """One fp32 time a row of latents (rows, ...)."""
    return torch.as_tensor(time, dtype=torch.float32, device=latents.device).expand(latents.shape[0])


def shift_of(scheduler: Any, tokens: int, *, max_shift: float = 1.15) -> float:
    """The shift mu of a scheduler with dynamic shifting: linear in the picture's tokens (diffusers' `calculate_shift`).

    Args:
        max_shift: where the scheduler's configuration names none.
    """
    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    return least + (tokens - low) * (most - least) / (high - low)
