"""What families on diffusion transformers share: tokens of patches, blocks in a row, flow matching."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from freectl.errors import InputError
from freectl.models.families.base import CtrlXSites, Family, Pair

PATH_METHODS = ("sdedit", "flowedit", "ddpm-inversion")
"""Methods that need nothing of a network but its output."""

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
    """A family of transformers whose blocks lie in `transformer_blocks`."""

    component: str = "transformer"
    methods: tuple[str, ...] | None = (*PATH_METHODS, "freecontrol")
    flow: bool = True

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
        """Heads side by side, and neighbouring tokens averaged where the grid is finer than `FINEST`."""
        patch = self.patch(network)
        features = value if value.dim() == 3 else value.transpose(1, 2).flatten(2)
        return pooled(features, (size[0] // patch, size[1] // patch))

    def concept_sites(self, network: nn.Module) -> list[Pair]:
        """None: a transformer's words are found in its joint attention."""
        return []

    def word_sites(self, network: nn.Module) -> list[Pair]:
        """None, as `concept_sites`."""
        return []

    def cross_attentions(self, network: nn.Module) -> list[str]:
        """None: text and picture attend to each other in one layer."""
        return []

    def self_attentions(self, network: nn.Module) -> list[str]:
        """All attentions, in execution order."""
        return [name for name, _ in network.named_modules() if name.endswith((".attn", ".attn2"))]

    def pnp_sites(self, network: nn.Module) -> tuple[str, tuple[str, ...]]:
        """As `Family.pnp_sites`."""
        raise InputError("--method", f"pnp on {self.name}, which has no residual blocks", "another method")

    def ctrlx_sites(self, network: nn.Module) -> CtrlXSites:
        """As `Family.ctrlx_sites`."""
        raise InputError("--method", f"ctrlx on {self.name}, which has no residual blocks", "another method")


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
