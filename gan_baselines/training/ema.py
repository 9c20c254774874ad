"""Exponential moving average of the generators."""

import copy

import torch
from torch import nn


class Ema:
    """theta_avg <- d theta_avg + (1 - d) theta with d = min(decay, (1 + t) / (10 + t)).

    The rising d lets early weights fade fast. Buffers (running statistics) are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after the 0-based `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.network.parameters()), list(network.parameters())
        for mean, weight in zip(averages, weights, strict=True):
            mean.lerp_(weight, 1 - decay)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)
