"""The guided filter (He et al., ECCV 2010; TPAMI 2013): a coarse map takes on the edges of a picture."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def guided_filter(guide: Tensor, maps: Tensor, radius: int, epsilon: float) -> Tensor:
    """In each window the map is a linear function of the picture's colours; each place takes the mean of its windows'.

    a = (cov(I, I) + epsilon 1)^-1 cov(I, p), b = mean(p) - a mean(I), q = mean(a) I + mean(b) (TPAMI 2013, equations
    19 to 21). Windows end at the picture's border. The cost does not depend on the radius.

    Args:
        guide: pictures I (B, C, H, W), 0 to 1. maps: p (B, H, W).
        radius: of the square windows, in pixels, 1 or more.
        epsilon: variance of colour below which a window is flat.

    Returns:
        q (B, H, W), float64.
    """
    colours, p = guide.double(), maps.double()[:, None]
    channels = colours.shape[1]
    pairs = (colours[:, :, None] * colours[:, None]).flatten(1, 2)
    means = _means(torch.cat([colours, p, colours * p, pairs], 1), radius)
    mean, mean_p, products, squares = means.split([channels, 1, channels, channels**2], 1)
    covariance = squares - (mean[:, :, None] * mean[:, None]).flatten(1, 2)
    matrix = covariance.movedim(1, -1).unflatten(-1, (channels, channels))
    matrix = matrix + epsilon * torch.eye(channels, dtype=matrix.dtype, device=matrix.device)
    a = torch.linalg.solve(matrix, (products - mean * mean_p).movedim(1, -1)).movedim(-1, 1)
    b = mean_p - (a * mean).sum(1, keepdim=True)
    smooth = _means(torch.cat([a, b], 1), radius)
    return (smooth[:, :channels] * colours).sum(1) + smooth[:, channels]


def _means(values: Tensor, radius: int) -> Tensor:
    """Means (B, C, H, W) over the window around each place, as far as it lies in the picture, from running sums."""
    for axis in (-2, -1):
        length = values.shape[axis]
        sums = pad(values.movedim(axis, -1).cumsum(-1), (1, 0))
        places = torch.arange(length, device=values.device)
        low, high = (places - radius).clamp(min=0), (places + radius + 1).clamp(max=length)
        values = ((sums[..., high] - sums[..., low]) / (high - low)).movedim(-1, axis)
    return values
