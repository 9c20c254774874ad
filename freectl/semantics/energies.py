"""Guidance energies of FreeControl (arXiv 2312.07536) as pure functions.

Shapes: features F (B, tokens, C); semantic coordinates s (B, tokens, N). All arithmetic is fp32, or fp64 for fp64
input. Energies are one number a sample, (B,), so that a batch gives each row the gradient it has alone. Where the
published code differs from the paper, an argument chooses.
"""

from typing import Literal

import torch
from torch import Tensor

from freectl.errors import InputError

Reduction = Literal["mean", "sum"]
Normalize = Literal["variance", "minmax", "none"]


def normalise_coordinates(s: Tensor, mode: Normalize, variance: Tensor | None = None) -> Tensor:
    """Scale coordinates (B, tokens, N), or leave them (`none`, the paper).

    `minmax`: to [0, 1] for each sample and component, (s - min) / (max - min + 1e-7) over tokens, as the published code
    does; no gradient flows through min and max. `variance` (ours): all by sqrt(N / variance), so that a mean of squared
    differences over components is a share of the features' variance, whatever the features' scale.

    Args:
        variance: of the features, a scalar; for `variance` alone.

    Raises:
        InputError: unknown mode, or `variance` without one.
    """
    _choose("normalize", mode, ("variance", "minmax", "none"))
    s = _wide(s)
    if mode == "none":
        return s
    if mode == "variance":
        if variance is None:
            raise InputError("normalize", "variance without one", "the variance of the features")
        return s * (s.shape[-1] / variance.to(s).clamp(min=torch.finfo(s.dtype).tiny)).sqrt()
    low, high = torch.aminmax(s.detach().movedim(-2, 0), dim=0)
    return (s - low.unsqueeze(-2)) / (high - low + 1e-7).unsqueeze(-2)


def structure_energy(
    s: Tensor,
    s_ref: Tensor,
    *,
    mask: Tensor | None = None,
    background_weight: float = 10.0,
    reduction: Reduction = "mean",
    background_area: Literal["unmasked", "all"] = "unmasked",
) -> Tensor:
    """Return g_s, (B,): sum(m |s - s_ref|^2) / sum(m) + w sum((1 - m) |max(s - tau, 0)|^2) / area.

    tau is the per-component maximum of s_ref over the background, the tokens with m < 0.5. Without background tokens
    the second term is absent.

    Args:
        s: (B, tokens, N), differentiable.
        s_ref: (B or 1, tokens, N), guidance coordinates; no gradient flows into them.
        mask: m, (B or 1, tokens) in [0, 1]; None is all ones.
        background_weight: w >= 0; the published code uses 10.
        reduction: |.|^2 sums over components (paper) or averages (published code).
        background_area: the divisor, sum(1 - m) (paper) or all tokens (published code).

    Raises:
        InputError: shapes that do not fit, a mask outside [0, 1] or empty, unknown choices.
    """
    _choose("reduction", reduction, ("mean", "sum"))
    _choose("background_area", background_area, ("unmasked", "all"))
    s, s_ref = _wide(s), _wide(s_ref).detach()
    _check_pair("coordinates", s, s_ref)
    forward = _reduce((s - s_ref).square(), reduction)
    if mask is None:
        return forward.mean(-1)
    inside = _check_mask(mask, s).to(s)
    energy = (inside * forward).sum(-1) / inside.sum(-1)
    return energy + background_weight * _background_energy(s, s_ref, inside, reduction, background_area)


def _background_energy(s: Tensor, s_ref: Tensor, inside: Tensor, reduction: str, area: str) -> Tensor:
    background = inside < 0.5
    present = background.any(-1, keepdim=True)
    tau = s_ref.masked_fill(~background.unsqueeze(-1), -torch.inf).amax(-2, keepdim=True)
    # without background tokens tau is -inf: an infinite energy and NaN gradients, even where they are dropped
    tau = torch.where(present.unsqueeze(-1), tau, 0)
    outside = torch.where(present, 1 - inside, 0)
    excess = _reduce((s - tau).clamp(min=0).square(), reduction)
    divisor = outside.sum(-1) if area == "unmasked" else torch.full_like(outside[:, 0], outside.shape[-1])
    return (outside * excess).sum(-1) / torch.where(present.squeeze(-1), divisor, 1)


def appearance_weights(
    s: Tensor, n: int, mode: Literal["sigmoid", "gated"], threshold: float = 0.5, *, normalised: bool = False
) -> Tensor:
    """Return spatial weights (B, tokens, n) in [0, 1] from the first `n` components of coordinates (B, tokens, N).

    `sigmoid`: sigmoid(s), the paper. `gated`: min-max normalised s where it exceeds `threshold`, else 0, the published
    code; gradient flows through the kept values, not through the gate.

    Args:
        normalised: s is min-max normalised already.

    Raises:
        InputError: `n` outside 1..N, unknown mode.
    """
    _choose("appearance weights", mode, ("sigmoid", "gated"))
    if not 1 <= n <= s.shape[-1]:
        raise InputError("appearance components", str(n), f"1 to {s.shape[-1]}, the number of coordinates")
    s = _wide(s[..., :n])
    if mode == "sigmoid":
        return torch.sigmoid(s)
    scaled = s if normalised else normalise_coordinates(s, "minmax")
    return scaled * (scaled > threshold)


def appearance_vectors(features: Tensor, weights: Tensor) -> Tensor:
    """Return v, (B, n, C): means of features (B, tokens, C) weighted by (B, tokens, n).

    v^(k) = sum over tokens of w_k F / (sum over tokens of w_k + 1e-5).

    Raises:
        InputError: batch or tokens differ.
    """
    if features.shape[:-1] != weights.shape[:-1]:
        raise InputError("appearance weights", str(tuple(weights.shape)), f"{tuple(features.shape[:-1])} and n")
    features, weights = _wide(features), _wide(weights)
    with torch.autocast(features.device.type, enabled=False):
        total = torch.einsum("btn,btc->bnc", weights, features.to(weights))
    return total / (weights.sum(-2) + 1e-5).unsqueeze(-1)


def appearance_energy(v: Tensor, v_ref: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return g_a, (B,): the mean over k of |v^(k) - v_ref^(k)|^2.

    Args:
        v: (B, n, C), differentiable.
        v_ref: (B or 1, n, C); no gradient flows into it.
        reduction: |.|^2 sums over channels (paper) or averages (published code: the mean over everything).

    Raises:
        InputError: shapes that do not fit, unknown reduction.
    """
    _choose("reduction", reduction, ("mean", "sum"))
    v, v_ref = _wide(v), _wide(v_ref).detach()
    _check_pair("appearance vectors", v, v_ref)
    return _reduce((v - v_ref).square(), reduction).mean(-1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _reduce(squares: Tensor, reduction: str) -> Tensor:
    return squares.mean(-1) if reduction == "mean" else squares.sum(-1)


def _choose(option: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise InputError(option, f"'{found}'", ", ".join(allowed))


def _check_pair(what: str, x: Tensor, ref: Tensor) -> None:
    if x.ndim != 3 or ref.ndim != 3 or ref.shape[1:] != x.shape[1:] or ref.shape[0] not in (1, x.shape[0]):
        allowed = "(B, tokens, N) and a reference of the same shape or with batch 1"
        raise InputError(what, f"shapes {tuple(x.shape)} and {tuple(ref.shape)}", allowed)


def _check_mask(mask: Tensor, s: Tensor) -> Tensor:
    batch, tokens, _ = s.shape
    if mask.ndim != 2 or mask.shape[1] != tokens or mask.shape[0] not in (1, batch):
        raise InputError("mask", f"shape {tuple(mask.shape)}", f"({batch}, {tokens}) or (1, {tokens})")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError("mask", "values outside 0 to 1, or NaN", "values from 0 to 1")
    empty = (mask.sum(-1) == 0).nonzero().flatten().tolist()
    if empty:
        hint = "at least one selected token: lower the mask threshold, name another concept, or use mask 'none'"
        raise InputError("mask", f"no token selected (sample {empty[0]})", hint)
    return mask.expand(batch, tokens)
