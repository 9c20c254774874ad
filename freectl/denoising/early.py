"""The share of a forward that is done when it is ended early, for networks that are called by keyword."""

import inspect
import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from freectl.denoising.shares import counted, stored_share

Inputs = tuple[tuple[str, Any], ...]
"""Name of each argument that a network was called with, and what it was: `described`."""


def described(value: Any) -> Any:
    """An argument of a call without its numbers: a tensor's `torch.Size`, a list as a tuple, the rest as it is."""
    if isinstance(value, Tensor):
        return value.shape
    return tuple(map(described, value)) if isinstance(value, list | tuple) else value


def _like(told: Any) -> Any:
    """An argument as it was described."""
    if isinstance(told, torch.Size):
        return torch.zeros(told)
    return [_like(one) for one in told] if isinstance(told, tuple) else told


def early_share(network: nn.Module, sites: tuple[str, ...], inputs: Inputs) -> float:
    """Part, in (0, 1], of a forward's multiply-adds that are done when the last of `sites` fires.

    Where it is not stored (`freectl.denoising.shares`) the same architecture is built on the meta device and run once
    truncated and once whole; memoised.

    Args:
        inputs: of one call, by name; those without which the network runs alike may be left out.

    Raises:
        TapError: a site does not exist.
    """
    cls: Any = type(network)
    built_from = inspect.signature(cls.__init__).parameters
    config = {name: value for name, value in network.config.items() if name in built_from}  # type: ignore[operator, union-attr]
    told = dict(inputs)
    if "hidden_states" in told and "encoder_hidden_states" in told:
        latents, tokens = told["hidden_states"], told["encoder_hidden_states"][1]
        size = latents[-2:] if len(latents) == 4 else (latents[1], 1)  # packed: tokens alone
        stored = stored_share(cls.__name__, config, sites, size, tokens)
        if stored is not None:
            return stored
    return _share(cls, json.dumps(config, sort_keys=True), sites, inputs)


@lru_cache(maxsize=256)
def _share(cls: Any, config_json: str, sites: tuple[str, ...], inputs: Inputs) -> float:
    with torch.device("meta"), torch.no_grad():
        network = cls.from_config(json.loads(config_json)).eval()
        part, whole = counted(network, sites, {name: _like(told) for name, told in inputs})
    return part / whole
