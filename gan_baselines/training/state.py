"""Checkpoints from which a run goes on exactly: weights, averages, optimisers, pools, random states, log sums."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_baselines.errors import InputError
from gan_baselines.files import replace_folder
from gan_baselines.pool import ImagePool

Tensors = dict[str, Tensor]


def write_checkpoint(folder: Path, step: int, shared: Tensors, ranks: dict[str, tuple[Tensors, dict[str, Any]]],
                     keep: int) -> Path:  # fmt: skip
    """Write checkpoints/step-N whole or not at all, and delete all but the newest `keep`.

    Args:
        shared: what all processes have in common.
        ranks: by process name, tensors and JSON values of its own.

    Raises:
        GanError: the disk is full or the folder not writable; older checkpoints are kept.
    """
    final = folder / f"step-{step:09d}"

    def fill(partial: Path) -> None:
        save_file(_plain(shared), partial / "shared.safetensors")
        for name, (tensors, values) in ranks.items():
            save_file(_plain(tensors), partial / f"{name}.safetensors")
            (partial / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
        (partial / "step.json").write_text(json.dumps({"step": step, "ranks": sorted(ranks)}), encoding="utf-8")

    replace_folder(final, fill)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "step.json").is_file())


def read_checkpoint(path: Path, rank: str, world: int) -> tuple[int, Tensors, Tensors, dict[str, Any]]:
    """Return step, shared tensors, and the tensors and values of process `rank`, one of `world`.

    Raises:
        InputError: damaged, or written by another number of processes.
    """
    try:
        head = json.loads((path / "step.json").read_text(encoding="utf-8"))
        if world != len(head["ranks"]):
            found = f"'{path}' of {len(head['ranks'])} processes in a training on {world}"
            raise InputError("--resume", found, "the number of processes it was written by")
        values = json.loads((path / f"{rank}.json").read_text(encoding="utf-8"))
        return head["step"], load_file(path / "shared.safetensors"), load_file(path / f"{rank}.safetensors"), values
    except InputError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            "--resume", f"damaged checkpoint '{path}' ({error})", "delete it to use an older one"
        ) from error


def put(tensors: Tensors, prefix: str, part: Tensors) -> None:
    """Add `part` to `tensors` under `prefix`."""
    tensors.update({f"{prefix}/{name}": tensor for name, tensor in part.items()})


def get(tensors: Tensors, prefix: str) -> Tensors:
    """Return what `put` added under `prefix`."""
    return {name.removeprefix(prefix + "/"): t for name, t in tensors.items() if name.startswith(prefix + "/")}


def optimiser_state(optimiser: Optimizer) -> Tensors:
    """Tensors of an Adam optimiser: moments and step counts by parameter number."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value for index, part in state.items() for name, value in part.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Tensors) -> None:
    """Continue exactly from `optimiser_state`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def random_state() -> Tensors:
    """States of torch's global generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: Tensors) -> None:
    """Continue exactly from `random_state`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def pools_state(pools: dict[str, ImagePool]) -> tuple[Tensors, dict[str, Any]]:
    """Pictures and random states of all pools."""
    tensors: Tensors = {}
    values = {}
    for name, pool in pools.items():
        values[name], pictures = pool.state()
        if pictures is not None:
            tensors[name] = pictures
    return tensors, values


def restore_pools(pools: dict[str, ImagePool], tensors: Tensors, values: dict[str, Any], device: torch.device) -> None:
    """Continue exactly from `pools_state`."""
    for name, pool in pools.items():
        pictures = tensors.get(name)
        pool.restore(values[name], None if pictures is None else pictures.to(device))


def all_finite(network: nn.Module) -> bool:
    """Whether every weight and running statistic is a finite number."""
    return all(bool(torch.isfinite(t).all()) for t in network.state_dict().values() if t.is_floating_point())


def _plain(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
