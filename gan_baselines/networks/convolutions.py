"""Convolutions that multiply one matrix where the map is coarse and the weights are many.

The innermost layers of a U-Net at batch 1 hold a million weights and a dozen positions. Blocked convolution kernels
reorder all weights in each pass there, which costs more than the arithmetic; one product of the weights with the
unfolded map does not. Numbers differ from `nn.Conv2d` by rounding alone; names and shapes of the weights are the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_POSITIONS = 128
LEAST_WEIGHTS = 100_000


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of one group, zero padding and no dilation."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        n, _, height, width = x.shape
        h, w = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        if not _coarse(self.weight, n * h * w):
            return super().forward(x)
        columns = functional.unfold(x, kernel, padding=padding, stride=stride)
        columns = columns.transpose(0, 1).flatten(1)  # one product for the batch: its gradient is one product too
        y = (self.weight.flatten(1) @ columns).view(-1, n, h, w).transpose(0, 1)
        return y if self.bias is None else y + self.bias[:, None, None]


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of one group, without dilation."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        n, channels, height, width = x.shape
        if output_size is not None or not _coarse(self.weight, n * height * width):
            return super().forward(x, output_size)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        extra = kernel - 2 * padding + self.output_padding[0]
        h, w = ((side - 1) * stride + extra for side in (height, width))
        columns = self.weight.flatten(1).T @ x.transpose(0, 1).reshape(channels, -1)
        columns = columns.view(-1, n, height * width).transpose(0, 1)
        y = functional.fold(columns, (h, w), kernel, padding=padding, stride=stride)
        return y if self.bias is None else y + self.bias[:, None, None]


def _coarse(weight: Tensor, positions: int) -> bool:
    return weight.device == torch.device("cpu") and positions <= MOST_POSITIONS and weight.numel() >= LEAST_WEIGHTS
