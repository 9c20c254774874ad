"""Adversarial and reconstruction losses: pure functions of tensors. Computed in fp32 whatever the network ran in."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gan_baselines.config import LossMode, ScaleLoss


def discriminator_terms(
    mode: LossMode, real: Sequence[Tensor], fake: Sequence[Tensor], scales: ScaleLoss = "mean"
) -> tuple[Tensor, Tensor]:
    """Return the terms on real and on fake pictures of the loss that the discriminator minimises.

    vanilla: -log s(D(y)), -log(1 - s(D(G(x)))) with s the sigmoid (arXiv 1406.2661, eq. 1).
    lsgan: (D(y) - 1)^2, D(G(x))^2 (arXiv 1611.04076, with 0-1 targets). hinge: max(0, 1 - D(y)), max(0, 1 + D(G(x))).
    wgangp: -D(y), D(G(x)) (arXiv 1701.07875), to which `gradient_penalty` belongs.

    Args:
        real, fake: one map of logits for each scale, any shape.
        scales: mean or sum of the scales' terms.
    """
    return _over_scales(mode, real, 1.0, scales), _over_scales(mode, fake, 0.0, scales)


def generator_term(
    mode: LossMode, fake: Sequence[Tensor], scales: ScaleLoss = "mean", *, towards: float = 1.0
) -> Tensor:
    """Return what the generator minimises: vanilla -log s(D(G(x))) (the non-saturating form), lsgan (D(G(x)) - 1)^2,
    hinge and wgangp -D(G(x)); over scales as above. `towards` 0 asks for the judgement "fake" instead."""
    if mode in ("hinge", "wgangp"):
        return _reduced([(1 - 2 * towards) * logits.float().mean() for logits in fake], scales)
    return _over_scales(mode, fake, towards, scales)


def gradient_penalty(judge: Callable[[Tensor], Sequence[Tensor]], real: Tensor, fake: Tensor) -> Tensor:
    """E (|grad D(x)| - 1)^2 at x drawn on the line from a real to a fake picture (arXiv 1704.00028, eq. 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real.float() + (1 - share) * fake.detach().float()).requires_grad_()
    scores = torch.stack([logits.float().flatten(1).mean(1).sum() for logits in judge(between)]).sum()
    (gradient,) = torch.autograd.grad(scores, between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


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


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each sample, summed over numbers, (N,) (arXiv 1312.6114, appendix B)."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean |f(y) - f(G(x))|; no gradient to the real side (arXiv 1711.11585, eq. 4)."""
    return torch.stack([l1(f, r.detach()).mean() for r, f in zip(real, fake, strict=True)]).sum()


def mean_feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean squared difference of batch means (E f(y) - E f(G(x)))^2 (arXiv 1606.03498, 3.1)."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(r.detach().float().mean(0) - f.float().mean(0)).square().mean() for r, f in pairs]).sum()


def gram(features: Tensor) -> Tensor:
    """F F^T / (H W) of (N, C, H, W), (N, C, C): how often channels act together, wherever (arXiv 1508.06576, eq. 3)."""
    f = features.float().flatten(2)
    return f @ f.transpose(1, 2) / f.shape[2]


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of (N, C, H, W) over (H, W), (N, C) each (arXiv 1703.06868, eq. 5 and 6)."""
    f = features.float().flatten(2)
    return f.mean(2), (f.var(2, correction=0) + 1e-5).sqrt()


def total_variation(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbours, down and across, of (N, C, H, W)."""
    x = pictures.float()
    return (x[..., 1:, :] - x[..., :-1, :]).square().mean() + (x[..., 1:] - x[..., :-1]).square().mean()


def _over_scales(mode: LossMode, maps: Sequence[Tensor], target: float, scales: ScaleLoss) -> Tensor:
    return _reduced([_one(mode, logits.float(), target) for logits in maps], scales)


def _reduced(terms: list[Tensor], scales: ScaleLoss) -> Tensor:
    return torch.stack(terms).sum() if scales == "sum" else torch.stack(terms).mean()


def _one(mode: LossMode, logits: Tensor, target: float) -> Tensor:
    if mode == "vanilla":
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
    if mode == "lsgan":
        return (logits - target).square().mean()
    if mode == "wgangp":
        return (1 - 2 * target) * logits.mean()
    return functional.relu(1 - logits if target else 1 + logits).mean()
