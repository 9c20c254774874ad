"""How a network is called and what of it is read, which its model family knows."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from freectl.denoising.attention_layers import Part


class Call(Protocol):
    """How a network is called, which its model family knows.

    Args:
        network: the network. latents: (rows, C, h, w). time: the level's, or one a row. embeds: (rows, tokens, C).
        added: further inputs by name, rows first, as `Prompt.added` has them.
        attention_kwargs: passed on to the attention processors, as in diffusers.

    Returns:
        The network's output, (rows, C, h, w).
    """

    def __call__(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor: ...


Read = Callable[[nn.Module, Tensor, tuple[int, int]], Tensor]
Rescale = Callable[[Tensor, Tensor], Tensor]
"""(guided output, that of the conditional half), (B, C, h, w) -> the guided output that is used."""
Parts = Callable[[nn.Module, tuple[int, int]], Mapping[str, Part]]
