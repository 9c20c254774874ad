"""Normalisation layers by name, and what each asks of the convolution before it."""

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gan_baselines.config import Norm
from gan_baselines.errors import InputError

DEFAULT_GROUPS = 32


class InstanceNorm2d(nn.InstanceNorm2d):
    """`nn.InstanceNorm2d` without parameters: on a CPU by the kernel of group norm, which takes half the time."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if x.device.type != "cpu":
            return super().forward(x)
        return functional.group_norm(x, self.num_features, eps=self.eps)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the layer that follows a convolution with `channels` outputs.

    batch: affine, over (N, H, W). instance: over (H, W), no parameters. group: affine, over (H, W) and the channels of
    a group (arXiv 1803.08494). layer: affine, over (C, H, W) (arXiv 1607.06450). spectral, weight and none: nothing
    (the first two act on the convolution, see `wrap`).

    Raises:
        InputError: the channels do not divide into the groups asked for.
    """
    if norm.kind == "batch":
        return nn.BatchNorm2d(channels)
    if norm.kind == "instance":
        return InstanceNorm2d(channels)
    if norm.kind == "group":
        return nn.GroupNorm(group_count(norm, channels), channels)
    if norm.kind == "layer":
        return nn.GroupNorm(1, channels)
    return nn.Identity()


def group_count(norm: Norm, channels: int) -> int:
    """Number of groups for a layer of `channels`; by default min(32, channels).

    Raises:
        InputError: indivisible.
    """
    divisors = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
    if norm.channels_per_group:
        if channels % norm.channels_per_group:
            found = f"{norm.channels_per_group} channels a group on a layer of {channels} channels"
            raise InputError("model.norm.channels_per_group", found, f"a divisor: {divisors}")
        return channels // norm.channels_per_group
    groups = norm.groups or min(DEFAULT_GROUPS, channels)
    if channels % groups:
        raise InputError(
            "model.norm.groups", f"{groups} groups on a layer of {channels} channels", f"a divisor: {divisors}"
        )
    return groups


def conv_bias(norm: Norm) -> bool:
    """Whether a convolution before this norm carries a bias: not when the norm adds its own."""
    return norm.kind not in ("batch", "group", "layer")


def wrap(norm: Norm, conv: nn.Module) -> nn.Module:
    """Return `conv`, under spectral (arXiv 1802.05957) or weight normalisation (1602.07868) when `norm` asks for it."""
    if norm.kind == "spectral":
        return spectral_norm(conv)
    return weight_norm(conv) if norm.kind == "weight" else conv


def mixes_samples(network: nn.Module) -> bool:
    """Whether one picture's output depends on the others of its batch (batch statistics in training mode)."""
    parts = list(network.modules())
    return any((isinstance(p, nn.BatchNorm2d) and p.training) or getattr(p, "mixes", False) for p in parts)
