"""Fingerprints of networks: what a cached inversion or basis depends on."""

import hashlib
from collections.abc import Iterable
from weakref import WeakKeyDictionary

import torch
from torch import nn

_known: "WeakKeyDictionary[nn.Module, tuple[tuple, str]]" = WeakKeyDictionary()


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, shapes, dtypes and bytes of all weights, loaded LoRA layers included.

    The digest is kept as long as no tensor was replaced or changed in place, so a second call costs next to nothing.
    """
    tensors = _tensors(module)
    state: tuple = tuple((name, id(t), t._version, t.dtype, _probe(t)) for name, t in tensors.items())
    state += tuple(_adapters(module))
    known = _known.get(module)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256(repr(_adapters(module)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(data.numpy().data)
    _known[module] = (state, digest.hexdigest())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    tensors = dict(module.state_dict(keep_vars=True))
    if not any(tensor.is_meta for tensor in tensors.values()):
        return tensors
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return dict(get_state_dict_offloaded_model(module))  # sequential offload keeps the weights outside the module


def _probe(tensor: torch.Tensor) -> tuple[float, ...]:
    """A few entries: a change through `.data` (merged LoRAs, casts) leaves identity and version as they were."""
    row = tensor.detach()
    while row.dim() > 1 and row.numel():
        row = row.select(0, row.shape[0] // 2)
    row = row.flatten()
    return tuple(row[:: max(1, row.numel() // 4)].tolist())


def _adapters(module: nn.Module) -> list[str]:
    """Active LoRA adapters with their scales: they change the function without changing the weights."""
    found = []
    for name, layer in module.named_modules():
        active = getattr(layer, "active_adapters", None)
        if active and hasattr(layer, "scaling") and not callable(active):
            merged = getattr(layer, "merged_adapters", [])
            found.append(
                f"{name}:{list(active)}:{dict(layer.scaling)}:{getattr(layer, 'disable_adapters', 0)}:{merged}"
            )
    return found


def combined(modules: Iterable[nn.Module | None]) -> str:
    """One digest of several networks, in order; None counts too."""
    parts = ["none" if module is None else fingerprint(module) for module in modules]
    return hashlib.sha256("/".join(parts).encode()).hexdigest()
