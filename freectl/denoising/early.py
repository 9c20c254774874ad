"""The share of a forward that is done when it is ended early, for networks that are called by keyword."""

import inspect
import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from freectl.denoising.shares import counted, stored_share

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each tensor that a network was called with."""


def early_share(network: nn.Module, sites: tuple[str, ...], shapes: Shapes) -> float:
    """Part, in (0, 1], of a forward's multiply-adds that are done when the last of `sites` fires.

    Where it is not stored (`freectl.denoising.shares`) the same architecture is built on the meta device and run once
    truncated and once whole; memoised.

    Raises:
        TapError: a site does not exist.
    """
    cls: Any = type(network)
    built_from = inspect.signature(cls.__init__).parameters
    config = {name: value for name, value in network.config.items() if name in built_from}  # type: ignore[operator, union-attr]
    told = dict(shapes)
    stored = stored_share(cls.__name__, config, sites, told["hidden_states"][-2:], told["encoder_hidden_states"][1])
    if stored is not None:
        return stored
    return _share(cls, json.dumps(config, sort_keys=True), sites, shapes)


@lru_cache(maxsize=256)
def _share(cls: Any, config_json: str, sites: tuple[str, ...], shapes: Shapes) -> float:
    with torch.device("meta"), torch.no_grad():
        network = cls.from_config(json.loads(config_json)).eval()
        inputs: dict[str, Any] = {name: torch.zeros(shape) for name, shape in shapes}
        part, whole = counted(network, sites, inputs)
    return part / whole
