"""Fingerprints of networks: what a cached inversion or basis depends on.

A network that was loaded from files and not changed since has theirs, whatever dtype it was loaded in: bases fit every
dtype, and no weight is read for it twice. Any other has that of its weights as they are now.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from freectl.files.file_digests import kept_digest

_State = dict[str, tuple]
_known: "WeakKeyDictionary[nn.Module, tuple[_State, Callable[[], str]]]" = WeakKeyDictionary()
_seen: ContextVar[dict[nn.Module, str] | None] = ContextVar("fingerprints of this run", default=None)
_WIDE = {torch.float64, torch.float32}


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Take networks to stay as they are inside, as in one run, so that each is looked at once."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def fingerprint(module: nn.Module) -> str:
    """sha256 over names, shapes and values of all weights, loaded LoRA layers included.

    It is kept as long as no tensor was replaced or changed in place, so a second call costs next to nothing.

    Raises:
        OSError: the files that the weights came from have gone.
    """
    seen = _seen.get()
    if seen is None:
        return _found(module)
    if module not in seen:
        seen[module] = _found(module)
    return seen[module]


def _found(module: nn.Module) -> str:
    state = _state(module)
    known = _known.get(module)
    if known is not None and _alike(known[0], state):
        return known[1]()
    digest = _digest(sorted(_tensors(module).items()), _adapters(module))
    _known[module] = (state, lambda: digest)
    return digest


def from_files(module: nn.Module, files: Sequence[Path], part: str = "") -> None:
    """Say that a network is what these safetensors files hold, as it was loaded from them just now.

    Args:
        part: the network's name, where a file holds several.
    """

    def digest() -> str:
        whole = kept_digest(files, "weights", lambda: _digest(_in_files(files), []))
        return hashlib.sha256(f"{part}/{whole}".encode()).hexdigest() if part else whole

    _known[module] = (_state(module), digest)


def _digest(tensors: Iterable[tuple[str, Tensor]], adapters: list[str]) -> str:
    digest = hashlib.sha256(repr(adapters).encode())
    for name, tensor in tensors:
        # 16 bits and the same values in 32 are the same weights
        wide = tensor.detach() if not tensor.is_floating_point() or tensor.dtype in _WIDE else tensor.detach().float()
        digest.update(f"{name}{tuple(wide.shape)}{wide.dtype}".encode())
        digest.update(wide.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _in_files(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Name and values of every tensor of some files, by name."""
    from safetensors import safe_open

    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        held = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - not a mapping
        for name in sorted(held):
            yield name, held[name].get_tensor(name)


def _state(module: nn.Module) -> _State:
    tensors = _tensors(module)
    # what sequential offload keeps outside the module is another tensor at each call
    inside = {name for name, tensor in module.state_dict(keep_vars=True).items() if tensors.get(name) is tensor}
    known: _State = {
        name: (*((id(t), t._version) if name in inside else (None, None)), t.dtype, _probe(t))
        for name, t in tensors.items()
    }
    return known | {"adapters": tuple(_adapters(module))}


def _alike(before: _State, now: _State) -> bool:
    """Whether no tensor changed; which one it is counts only where it was inside the module both times."""

    def same(one: tuple, other: tuple) -> bool:
        return one == other or (one[2:] == other[2:] and None in (one[0], other[0]))

    if before.keys() != now.keys() or before["adapters"] != now["adapters"]:
        return False
    return all(same(before[name], now[name]) for name in before if name != "adapters")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    tensors = dict(module.state_dict(keep_vars=True))
    if not any(tensor.is_meta for tensor in tensors.values()):
        return tensors
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return dict(get_state_dict_offloaded_model(module))  # sequential offload keeps the weights outside the module


def _probe(tensor: Tensor) -> tuple[float, ...]:
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
