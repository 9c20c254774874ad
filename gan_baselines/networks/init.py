"""Initial weights of the GAN family, and parameter counts."""

from typing import Any

import torch
from torch import nn

from gan_baselines.config import InitKind

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def initialise(network: nn.Module, kind: InitKind = "normal", std: float = 0.02) -> nn.Module:
    """Draw the weights of convolutions and linear layers, norm weights from N(1, std), set biases to 0.

    normal: N(0, std) (arXiv 1511.06434, section 4). xavier: Glorot's normal with gain `std`, as the multimodal codes
    have it. kaiming: He's normal by the number of inputs (arXiv 1502.01852). Uses torch's global generator. Returns
    `network`.
    """
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, _WEIGHTED):
                if kind == "normal":
                    nn.init.normal_(_weight(part), 0.0, std)
                elif kind == "xavier":
                    nn.init.xavier_normal_(_weight(part), gain=std)
                else:
                    nn.init.kaiming_normal_(_weight(part))
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.BatchNorm2d | nn.GroupNorm) and part.affine:
                nn.init.normal_(part.weight, 1.0, std)
                nn.init.zeros_(part.bias)
    return network


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers in `network`."""
    return sum(weight.numel() for weight in network.parameters())


def _weight(layer: Any) -> torch.Tensor:
    # under spectral or weight normalisation `conv.weight` is computed; the drawn tensor lies below it
    parametrized = getattr(layer, "parametrizations", None)
    if parametrized is None:
        return layer.weight
    below = parametrized.weight
    return below.original if hasattr(below, "original") else below.original1
