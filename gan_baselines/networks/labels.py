"""Label maps as what networks take, and as pictures to look at."""

import torch
from torch import Tensor
from torch.nn import functional


def label_planes(x: Tensor, labels: int, instances: bool) -> Tensor:
    """Label maps (N, 1 or 2, H, W) as one plane a class, and the edges of instances as one more."""
    planes = functional.one_hot(x[:, 0].long(), labels).movedim(3, 1).to(x.dtype)
    return torch.cat([planes, edges(x[:, 1:2])], 1) if instances else planes


def edges(instances: Tensor) -> Tensor:
    """1 where a pixel of (N, 1, H, W) has another number than one of its four neighbours (arXiv 1711.11585, 3.3)."""
    edge = torch.zeros_like(instances, dtype=torch.bool)
    down = instances[:, :, 1:] != instances[:, :, :-1]
    across = instances[..., 1:] != instances[..., :-1]
    edge[:, :, 1:] |= down
    edge[:, :, :-1] |= down
    edge[..., 1:] |= across
    edge[..., :-1] |= across
    return edge.to(instances.dtype)


def regions(x: Tensor) -> Tensor:
    """Numbers (N, H, W) of the regions of one label and one instance, from 0 over the whole batch."""
    picture = torch.arange(len(x), device=x.device).view(-1, 1, 1).expand(-1, *x.shape[-2:])
    instance = x[:, 1] if x.shape[1] > 1 else torch.zeros_like(x[:, 0])
    keys = torch.stack([picture.double(), x[:, 0].double(), instance.double()], -1)
    _, numbers = torch.unique(keys.view(-1, 3), dim=0, return_inverse=True)
    return numbers.view(picture.shape)


def region_means(values: Tensor, numbers: Tensor) -> Tensor:
    """Replace (N, C, H, W) by its mean over each region of `numbers` (N, H, W) (arXiv 1711.11585, section 3.4)."""
    flat = values.movedim(1, 3).reshape(-1, values.shape[1]).float()
    index, count = numbers.flatten(), int(numbers.max()) + 1
    sums = torch.zeros(count, flat.shape[1], device=flat.device).index_add(0, index, flat)
    means = sums / torch.bincount(index, minlength=count)[:, None]
    return means[index].view(*numbers.shape, -1).movedim(3, 1)


def paint(x: Tensor) -> Tensor:
    """Label maps (N, 1 or 2, H, W) as pictures in [-1, 1], one colour a class."""
    steps = torch.tensor([0.618034, 0.381966, 0.754878], device=x.device).view(1, 3, 1, 1)
    return ((x[:, :1] + 1) * steps % 1) * 2 - 1
