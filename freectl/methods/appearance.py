"""Attention-weighted transfer of feature statistics (Lin et al., Ctrl-X, arXiv 2406.07540)."""

from functools import partial
from typing import Any

from torch import Tensor, nn


def normalised(features: Tensor) -> Tensor:
    """Features (B, tokens, C) with mean 0 and variance 1 over the tokens of each channel."""
    return nn.functional.instance_norm(features.transpose(1, 2)).transpose(1, 2)


def transferred(own: Tensor, appearance: Tensor, attention: Any) -> Tensor:
    """S norm(own) + M: own structure with the statistics of whatever in the appearance corresponds to each token.

    A = softmax(norm(own) W_q (norm(appearance) W_k)^T / sqrt(d)), M = A appearance, S = sqrt(A appearance^2 - M^2).
    With several heads, each head's A weighs its own share of the channels.

    Args:
        own, appearance: (B, tokens, C), input of a self-attention.
        attention: the diffusers `Attention` layer that the features go to.

    Returns:
        (B, tokens, C), dtype of `own`.
    """
    normal = normalised(own.float())
    # `forward` leaves hooks on the projections alone: they are for the batch that the layer sees
    queries = attention.to_q.forward(normal.to(own.dtype))
    keys = attention.to_k.forward(normalised(appearance.float()).to(own.dtype))
    q, k, h = (_heads(x.float(), attention.heads) for x in (queries, keys, appearance))
    attend = partial(nn.functional.scaled_dot_product_attention, q, k, scale=float(attention.scale))
    mean, square = (attend(v).transpose(1, 2).flatten(2) for v in (h, h * h))
    deviation = (square - mean * mean).clamp(min=0).sqrt()
    return (deviation * normal + mean).to(own.dtype)


def _heads(value: Tensor, heads: int) -> Tensor:
    return value.unflatten(-1, (heads, -1)).transpose(1, 2)
