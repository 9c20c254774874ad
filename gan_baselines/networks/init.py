"""Initial weights of the GAN family, and parameter counts."""

from typing import Any

import torch
from torch import nn

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def initialise(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw convolution weights from N(0, std), norm weights from N(1, std), set biases to 0.

    As arXiv 1511.06434, section 4. Uses torch's global generator. Returns `network`.
    """
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, _CONVOLUTIONS):
                nn.init.normal_(_weight(part), 0.0, std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.BatchNorm2d | nn.GroupNorm) and part.affine:
                nn.init.normal_(part.weight, 1.0, std)
                nn.init.zeros_(part.bias)
    return network


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers in `network`."""
    return sum(weight.numel() for weight in network.parameters())


def _weight(conv: Any) -> torch.Tensor:
    # under spectral normalisation `conv.weight` is computed; the drawn tensor lies below it
    parametrized = getattr(conv, "parametrizations", None)
    return parametrized.weight.original if parametrized is not None else conv.weight
