"""Executed shares of forwards that end early: stored for published architectures, so that runs measure none.

The multiply-adds of a forward are a polynomial in the cells n of its latent and the tokens T of its text: layers on the
picture go with n, its self-attention with n^2, attention between both with n T, layers on the text with T and its own
attention with T^2; the rest does not change. `shares.json` has the coefficients, up to the last tapped layer and of the
whole forward; `coefficients` finds them by counting.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from freectl.denoising.taps import tap

_TABLE = Path(__file__).with_name("shares.json")
_WITHOUT_EFFECT = {"act_fn", "center_input_sample", "dropout", "flip_sin_to_cos", "freq_shift", "norm_eps",
                   "pos_embed_max_size", "sample_size", "upcast_attention"}  # fmt: skip
"""Entries of a configuration that change no number of multiply-adds at a given size; so does whatever is off."""
_SMALL = 2**22
_POINTS = ((8, 8, 1), (8, 16, 1), (16, 16, 1), (8, 8, 3), (8, 16, 3), (8, 8, 6), (16, 32, 5))
"""Height, width and tokens at which is counted: one for each of six coefficients, and one to check them."""


def architecture(kind: str, config: Mapping[str, Any], sites: Sequence[str]) -> str:
    """The key in the table of a network class, its configuration and the last of the tapped modules."""
    told = {name: value for name, value in config.items() if value and name not in _WITHOUT_EFFECT and name[0] != "_"}
    return hashlib.sha256(json.dumps([kind, told, sites[-1]], sort_keys=True).encode()).hexdigest()[:16]


def stored_share(kind: str, config: Mapping[str, Any], sites: Sequence[str], size: Sequence[int], tokens: int) -> Any:
    """The share, in (0, 1], of forwards on latents of `size` (height, width); None where it is not known.

    Args:
        kind: name of the network's class. config: its configuration.
        sites: tapped modules in execution order: the forward ends behind the last one.
    """
    entry = _table().get(architecture(kind, config, sites))
    if entry is None or any(side % entry["multiple"] for side in size):  # uneven halves have cells of their own
        return None
    height, width = size
    terms = _terms(height, width, tokens)
    until, whole = (sum(a * b for a, b in zip(entry[name], terms, strict=True)) for name in ("until", "whole"))
    return until / whole


def counted(network: Any, sites: Sequence[str], inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Multiply-adds, times two, of a forward up to the last site and of the whole one.

    Args:
        network, inputs: on the meta device. A small network is moved to the CPU, where an operation takes a fifth.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which takes longer to import than all of this package

    device = "meta"
    if sum(weight.numel() for weight in network.parameters()) <= _SMALL:
        device, network, inputs = "cpu", _zeros(network), tree_map(_zeros, dict(inputs))
    reached: dict[str, int] = {}

    def reach(site: str, output: Tensor) -> Tensor:
        reached.setdefault(site, counter.get_total_flops())
        return output

    counter, edits = FlopCounterMode(display=False), {site: partial(reach, site) for site in sites}
    # the CPU's fused attention is not counted
    with torch.device(device), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter, tap(network, edits=edits):
        network(**inputs)
    return max(reached.values()), counter.get_total_flops()


def _zeros(at: Any) -> Any:
    """A network or a tensor on the CPU instead of the meta device, all zeros."""
    if isinstance(at, Tensor):
        return torch.zeros(at.shape, dtype=at.dtype, device="cpu")
    if isinstance(at, nn.Module):
        at.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*at.parameters(), *at.buffers()):
                tensor.zero_()
        for module in at.modules():  # tables that are no buffers, such as those of rotary positions
            vars(module).update({name: _zeros(one) for name, one in vars(module).items() if isinstance(one, Tensor)})
    return at


def coefficients(count: Callable[[int, int, int], tuple[int, int]]) -> dict[str, list[float]]:
    """An entry of the table, without its "multiple".

    Args:
        count: height, width and tokens -> what `counted` gives.

    Raises:
        ValueError: the counts are no such polynomial.
    """
    from sympy import Matrix  # exact; comes with torch

    found, terms = (Matrix(rows) for rows in ([count(*at) for at in _POINTS], [_terms(*at) for at in _POINTS]))
    solved = terms[:-1, :].LUsolve(found[:-1, :])
    if terms * solved != found:
        raise ValueError("multiply-adds that are no polynomial in cells and tokens")
    # deep levels have few cells, so that a coefficient may be a fraction of a power of two: exact as a float
    return {name: [float(value) for value in solved.col(i)] for i, name in enumerate(("until", "whole"))}


def _terms(height: int, width: int, tokens: int) -> tuple[int, ...]:
    cells = height * width
    return 1, cells, cells**2, cells * tokens, tokens, tokens**2


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))
