"""Attention-weighted transfer of feature statistics (Lin et al., Ctrl-X, arXiv 2406.07540)."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

Deviation = Literal["population", "sample"]
"""Over n tokens with 1e-5 added to the variance, or over n - 1 as it is."""


def normalised(features: Tensor, deviation: Deviation = "population") -> Tensor:
    """Features (B, tokens, C) with mean 0 and deviation 1 over the tokens of each channel; a flat channel becomes 0."""
    if deviation == "population":
        return nn.functional.instance_norm(features.transpose(1, 2)).transpose(1, 2)
    centred, spread = features - features.mean(1, keepdim=True), features.std(1, keepdim=True)
    return torch.where(spread > 0, centred / spread, 0)


def transferred(
    own: Tensor,
    appearance: Tensor,
    attention: Any,
    structure: Tensor | None = None,
    deviation: Deviation = "population",
) -> Tensor:
    """S norm(own) + M: own structure with the statistics of whatever in the appearance corresponds to each token.

    A = softmax(norm(own) W_q (norm(appearance) W_k)^T / sqrt(d)), M = A appearance, S = sqrt(A appearance^2 - M^2).
    With several heads, each head's A weighs its own share of the channels.

    Args:
        own, appearance: (B, tokens, C), input of a self-attention.
        attention: the diffusers attention layer that the features go to.
        structure: (B, tokens, C), in place of `own` in A; None = `own`.
        deviation: of norm.

    Returns:
        (B, tokens, C), dtype of `own`.
    """
    norm = partial(normalised, deviation=deviation)
    normal = norm(own.float())
    asking = normal if structure is None else norm(structure.float())
    q = _projected(attention, "q", asking.to(own.dtype)).float()
    k = _projected(attention, "k", norm(appearance.float()).to(own.dtype)).float()
    h = _heads(appearance.float(), attention.heads)
    scale = float(getattr(attention, "scale", q.shape[-1] ** -0.5))
    attend = partial(nn.functional.scaled_dot_product_attention, q, k, scale=scale)
    mean, square = (attend(v).transpose(1, 2).flatten(2) for v in (h, h * h))
    spread = (square - mean * mean).clamp(min=0).sqrt()
    return (spread * normal + mean).to(own.dtype)


def _projected(attention: Any, letter: str, features: Tensor) -> Tensor:
    """Queries or keys (B, heads, tokens, channels), normalised where the layer does."""
    # `forward` leaves hooks on the projections alone: they are for the batch that the layer sees
    found = _heads(getattr(attention, f"to_{letter}").forward(features), attention.heads)
    norm = getattr(attention, f"norm_{letter}", None)
    return found if norm is None else norm.forward(found)


def _heads(value: Tensor, heads: int) -> Tensor:
    return value.unflatten(-1, (heads, -1)).transpose(1, 2)
