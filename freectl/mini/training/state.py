"""The state of a training on disk: networks, their averages, optimisers, and what the run was asked for."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from freectl.errors import InputError
from freectl.files import tensor_files

STATE = "state.safetensors"


def save_state(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    ema: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    facts: Mapping[str, Any],
) -> None:
    """Write all tensors under a temporary name, then rename: a kill leaves the old state or the new one."""
    tensors = {f"model/{k}": v.detach() for k, v in parameters.items()} | {f"ema/{k}": v for k, v in ema.items()}
    names = {id(parameter): name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            tensors |= {f"optimizer/{names[id(parameter)]}/{kind}": value for kind, value in state.items()}
    temporary = folder / "state.tmp"
    meta = {name: json.dumps(value) for name, value in facts.items()}
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, temporary, meta)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, folder / STATE)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What `save_state` was told beside the tensors; None where there is no state.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder / STATE).exists():
        return None
    tensor_files.checked(folder / STATE, "--out", allowed="a whole state, or a new folder")
    with safe_open(folder / STATE, framework="pt") as file:
        return {name: json.loads(value) for name, value in (file.metadata() or {}).items()}


def load_state(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    ema: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Fill networks, averages and optimisers from the file.

    Every tensor takes the memory format of its parameter: the fused kernels walk parameter, gradient and moments by
    address, so a contiguous moment beside a channels-last parameter would be read in another order.

    Raises:
        InputError: the file is of other networks.
    """
    tensors = load_file(folder / STATE)
    found = {name.removeprefix("model/"): list(value.shape) for name, value in tensors.items() if name[:6] == "model/"}
    if found != {name: list(value.shape) for name, value in parameters.items()}:
        raise InputError("--out", f"'{folder}', the training of another network", "a new folder, or the same options")
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            name, kind = key.removeprefix("optimizer/").rsplit("/", 1)
            states.setdefault(name, {})[kind] = value
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model/{name}"])
            ema[name].copy_(tensors[f"ema/{name}"])
    for optimizer in optimizers:
        owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in parameters.items():
            if id(parameter) in owned and name in states:
                optimizer.state[parameter] = {kind: _like(v, parameter) for kind, v in states[name].items()}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """The value in the parameter's memory format; a step counter as it is."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
