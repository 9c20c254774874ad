"""The guided filter against its equations, window by window, and in its limits."""

import numpy as np
import pytest
import torch

from freectl.denoising.guided_filter import guided_filter


def by_windows(guide, p, radius, epsilon):
    """q of one picture (H, W, C): a and b of every window, then their mean at every place."""
    height, width, channels = guide.shape
    rows = [slice(max(0, y - radius), y + radius + 1) for y in range(height)]
    columns = [slice(max(0, x - radius), x + radius + 1) for x in range(width)]
    line = np.zeros((height, width, channels + 1))
    for y in range(height):
        for x in range(width):
            colours = guide[rows[y], columns[x]].reshape(-1, channels)
            values = p[rows[y], columns[x]].reshape(-1)
            centred = colours - colours.mean(0)
            covariance = centred.T @ centred / len(colours) + epsilon * np.eye(channels)
            a = np.linalg.solve(covariance, centred.T @ (values - values.mean()) / len(colours))
            line[y, x] = [*a, values.mean() - a @ colours.mean(0)]
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            mean = line[rows[y], columns[x]].reshape(-1, channels + 1).mean(0)
            found[y, x] = mean[:-1] @ guide[y, x] + mean[-1]
    return found


@pytest.mark.parametrize(("size", "radius", "epsilon"), [((7, 9), 2, 1e-3), ((5, 4), 1, 0.1), ((4, 6), 9, 1e-2)])
def test_against_a_loop_over_windows(size, radius, epsilon):
    random = np.random.default_rng(0)
    guide, maps = random.random((2, *size, 3)), random.random((2, *size))
    found = guided_filter(torch.tensor(guide).movedim(-1, 1), torch.tensor(maps), radius, epsilon)
    expected = np.stack([by_windows(one, p, radius, epsilon) for one, p in zip(guide, maps, strict=True)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_limits():
    random = torch.Generator().manual_seed(0)
    guide, maps = torch.rand(1, 3, 8, 8, generator=random), torch.rand(1, 8, 8, generator=random)
    linear = 0.3 * guide[:, 0] - 0.2 * guide[:, 2] + 0.4
    torch.testing.assert_close(guided_filter(guide, linear, 2, 1e-12), linear.double(), rtol=0, atol=1e-5)
    flat = torch.full_like(guide, 0.5)  # no edges: two box filters one after the other
    once = guided_filter(flat, maps, 2, 1e-3)
    torch.testing.assert_close(once, guided_filter(flat * 0.7, maps, 2, 1e-3))
    assert once.var() < 0.2 * maps.var()
    torch.testing.assert_close(
        guided_filter(guide, torch.full_like(maps, 0.25), 3, 1e-3), torch.full((1, 8, 8), 0.25).double()
    )


def test_edges_of_the_picture_are_found():
    """A blurred half of a picture whose halves differ in colour becomes sharp again."""
    guide = torch.zeros(1, 3, 16, 16)
    guide[..., 8:] = torch.tensor([0.8, 0.4, 0.1])[:, None, None]
    ramp = torch.linspace(0, 1, 16).expand(1, 16, 16)
    found = guided_filter(guide, ramp, 6, 1e-4)
    assert (found[..., 8] - found[..., 7]).min() > 3 * (ramp[..., 8] - ramp[..., 7]).max()
