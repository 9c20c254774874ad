"""Gradients with respect to inputs alone, and what they keep of a forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Checkpointing = Literal["auto", "on", "off"]
ENOUGH = 8 * 2**30
"""Free bytes of an accelerator at which a guided call keeps all that its gradient needs: twice what XL's takes."""


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters without gradient inside, as before outside: autograd then saves nothing for weight gradients.

    For guided calls alone: products round differently with weights that take no gradient, and unguided steps are
    diffusers' own to the bit.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def run_again(module: nn.Module, *inputs: Any) -> Tensor:
    """A block of which the gradient keeps the inputs alone: it is run again for it, with the same numbers."""
    return checkpoint(module.__call__, *inputs, use_reentrant=False, preserve_rng_state=False)


@contextmanager
def checkpointed(network: Any, wanted: bool = True) -> Iterator[None]:
    """Inside, gradients run a network's blocks again instead of keeping what is in them (arXiv 1604.06174).

    The gradient is the same to the bit. A network on which a caller has switched it on is left as it is.
    """
    if not wanted or getattr(network, "is_gradient_checkpointing", True):
        yield
        return
    network.enable_gradient_checkpointing(run_again)
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()


def is_wanted(choice: Checkpointing, device: torch.device) -> bool:
    """Whether blocks are run again: as chosen, or where an accelerator has little memory left."""
    if choice != "auto":
        return choice == "on"
    return device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < ENOUGH
