"""What families on diffusion transformers share: tokens of patches, blocks in a row, flow matching."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from freectl.errors import InputError
from freectl.models.families.base import CtrlXSites, Family, Pair

PATH_METHODS = ("sdedit", "flowedit", "ddpm-inversion")
"""Methods that need nothing of a network but its output."""


@dataclass(frozen=True, kw_only=True)
class TransformerFamily(Family):
    """A family of transformers whose blocks lie in `transformer_blocks`."""

    component: str = "transformer"
    methods: tuple[str, ...] | None = PATH_METHODS

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
