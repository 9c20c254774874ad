"""Pictures and tiny networks that the metric tests share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eval.scores.metrics import ClipNetwork


def pictures(seed: int, count: int = 3, side: int = 32) -> Tensor:
    """Smooth random pictures (count, 3, side, side), 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def toy_clip() -> ClipNetwork:
    """Mean colour as the picture's embedding, and colour words as texts'."""
    words = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}

    def encode_text(texts: Sequence[str]) -> Tensor:
        return torch.tensor([words[text] for text in texts])

    return ClipNetwork("toy", lambda p: p.mean((2, 3)), encode_text)


def flat(*colour: float) -> Tensor:
    """One picture (1, 3, 16, 16) of one colour."""
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 16, 16).clone()
