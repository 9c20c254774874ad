"""Adversarial and reconstruction losses: pure functions of tensors. Computed in fp32 whatever the network ran in."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gan_baselines.config import LossMode


def discriminator_terms(mode: LossMode, real: Sequence[Tensor], fake: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the terms on real and on fake pictures of the loss that the discriminator minimises, mean over scales.

    vanilla: -log s(D(y)), -log(1 - s(D(G(x)))) with s the sigmoid (arXiv 1406.2661, eq. 1).
    lsgan: (D(y) - 1)^2, D(G(x))^2 (arXiv 1611.04076, with 0-1 targets). hinge: max(0, 1 - D(y)), max(0, 1 + D(G(x))).

    Args:
        real, fake: one map of logits for each scale, any shape.
    """
    return _mean_over_scales(mode, real, 1.0), _mean_over_scales(mode, fake, 0.0)


def generator_term(mode: LossMode, fake: Sequence[Tensor]) -> Tensor:
    """Return what the generator minimises: vanilla -log s(D(G(x))) (the non-saturating form), lsgan (D(G(x)) - 1)^2,
    hinge -D(G(x)); mean over scales."""
    if mode == "hinge":
        return torch.stack([-logits.float().mean() for logits in fake]).mean()
    return _mean_over_scales(mode, fake, 1.0)


def realness(mode: LossMode, logits: Sequence[Tensor]) -> Tensor:
    """Return each picture's score in [0, 1], (N,), averaged over patches and scales, without gradient.

    vanilla passes the sigmoid; the others clamp, since their targets are 0 and 1 (hinge: -1 and 1, shifted).
    """
    maps = [part.detach().float() for part in logits]
    if mode == "vanilla":
        maps = [part.sigmoid() for part in maps]
    elif mode == "hinge":
        maps = [(part + 1) / 2 for part in maps]
    return torch.stack([part.flatten(1).mean(1) for part in maps]).mean(0).clamp(0, 1)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each sample, (N,)."""
    return (a.float() - b.float()).abs().flatten(1).mean(1)


def l2(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of each sample, (N,)."""
    return (a.float() - b.float()).square().flatten(1).mean(1)


def _mean_over_scales(mode: LossMode, maps: Sequence[Tensor], target: float) -> Tensor:
    return torch.stack([_one(mode, logits.float(), target) for logits in maps]).mean()


def _one(mode: LossMode, logits: Tensor, target: float) -> Tensor:
    if mode == "vanilla":
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
    if mode == "lsgan":
        return (logits - target).square().mean()
    return functional.relu(1 - logits if target else 1 + logits).mean()
