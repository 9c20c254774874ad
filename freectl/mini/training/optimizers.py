"""The optimisers of a training: AdamW, and Muon for matrices, also those that convolutions are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024)."""
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum, as long as AdamW's steps (Jordan et al. 2024; Liu et al. 2025, eq. 4).

    `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, and: a convolution (out, in, h, w) counts as the matrix
    (out, in h w); the iteration runs in float32, since bfloat16 is emulated on CPUs without AVX-512 BF16; matrices of
    equal shape are orthogonalised together.

    Args:
        parameters: of two or more dimensions.
        lr: learning rate, as for AdamW. weight_decay: decoupled. momentum: of the running mean of gradients.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient; `closure` is not called."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    matrix = self._ahead(parameter, parameter.grad, group["momentum"]).flatten(1)
                    by_shape[matrix.shape[0], matrix.shape[1]].append((parameter, matrix))
            for (rows, columns), found in by_shape.items():
                length = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                updates = orthogonalised(torch.stack([matrix for _, matrix in found]))
                for (parameter, _), update in zip(found, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update.view(parameter.shape), alpha=length)

    def _ahead(self, parameter: nn.Parameter, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead gradient; moves the running mean on."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices (B, m, n), about: singular values come out between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def hidden_matrices(modules: Mapping[str, nn.Module], outer: Iterable[str] = ()) -> list[str]:
    """Names ("module.name") of all matrices and convolutions but those whose name holds a word of `outer`.

    `outer` names the first and last layers and the embeddings, whose sides are no pair of equal hidden spaces.
    """
    words = tuple(outer)
    return [
        f"{module}.{name}"
        for module, network in modules.items()
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and not any(word in f"{module}.{name}" for word in words)
    ]


def make_optimizers(
    parameters: Mapping[str, nn.Parameter], matrices: Iterable[str], rate: float, decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the parameters named in `matrices`, where there are any, and AdamW for the others."""
    names = set(matrices)
    rest = [parameter for name, parameter in parameters.items() if name not in names]
    found: list[torch.optim.Optimizer] = []
    if names:
        found.append(Muon([parameters[name] for name in parameters if name in names], rate, decay))
    if rest:
        found.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=decay, fused=True))
    return found
