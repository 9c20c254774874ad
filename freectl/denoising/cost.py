"""What an edit costs: network work in row forwards and row backwards, wall time, peak memory.

A row forward is one latent through the network once. A forward ended early by `taps` counts its executed share of
the multiply-adds, taken from the architecture alone, so adapters do not change it.
"""

import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Any, cast

import torch
from torch import nn

from freectl.denoising.early import Inputs, described, early_share
from freectl.denoising.shares import counted, stored_share
from freectl.denoising.taps import EarlyExit
from freectl.errors import FreectlError, InputError

STAGES = ("load", "analysis", "synthesis")
CACHED = ("bases", "inversion", "reference")
_MIB = 2**20
_LATENTS = ("sample", "hidden_states", "x")
"""What networks call the latents that they are given."""
_TERM = re.compile(r"[a-z][a-z -]*? (?P<count>[0-9]+(\.[0-9]+)?)(?P<share> x executed share)?")
# (sites, (height, width) of the latent, encoder tokens)
_Truncated = tuple[tuple[str, ...], tuple[int, int], int]


@dataclass
class Cost:
    """Cost record of one run.

    Attributes:
        row_forwards: rows through the network; fractional when forwards were ended early.
        row_backwards: rows whose gradient was computed.
        seconds: wall seconds of each stage (nested stages inclusive); total is the sum of the outermost stages.
        peak_memory_mb: MiB, see `record_memory`; None where the platform does not tell.
        cached: which parts came from the cache.
    """

    row_forwards: float = 0.0
    row_backwards: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*STAGES, "total"), 0.0))
    peak_memory_mb: float | None = None
    cached: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(CACHED, False))
    _open: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall seconds of the `with` body to `name`, one of load, analysis, synthesis.

        Raises:
            InputError: another name.
        """
        if name not in STAGES:
            raise InputError("stage", f"'{name}'", ", ".join(STAGES))
        outermost, repeated = not self._open, name in self._open
        self._open.append(name)
        start = _now()
        try:
            yield
        finally:
            elapsed = _now() - start
            self._open.pop()
            if not repeated:
                self.seconds[name] += elapsed
            if outermost:
                self.seconds["total"] += elapsed

    @contextmanager
    def counting(self, network: nn.Module) -> Iterator["Cost"]:
        """Count every forward of `network` in the `with` body; do not nest it on one network.

        Whole forwards count when they end, early-ended ones when the `with` ends (their share is measured then, off
        the hot path), forwards that fail count nothing.
        """
        truncated: Counter[_Truncated] = Counter()
        early: Counter[tuple[tuple[str, ...], Inputs]] = Counter()

        def count(_network: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            sample = args[0] if args else next(kwargs[name] for name in _LATENTS if name in kwargs)
            error = sys.exception()
            if output is not None:
                self.row_forwards += len(sample)
            elif isinstance(error, EarlyExit) and not args and "sample" not in kwargs:
                inputs = tuple((name, described(x)) for name, x in kwargs.items() if not isinstance(x, dict))
                early[error.sites, inputs] += len(sample)
            elif isinstance(error, EarlyExit):
                encoder = args[2] if len(args) > 2 else kwargs["encoder_hidden_states"]
                height, width = sample.shape[-2:]
                truncated[error.sites, (height, width), encoder.shape[1]] += len(sample)

        handle = network.register_forward_hook(count, with_kwargs=True, always_call=True)
        try:
            yield self
        finally:
            handle.remove()
            for (sites, size, tokens), rows in truncated.items():
                self.row_forwards += rows * truncated_share(network, sites, size, tokens)
            for (sites, inputs), rows in early.items():
                self.row_forwards += rows * early_share(network, sites, inputs)

    def add_backward(self, rows: int) -> None:
        """Count a backward pass through the network for `rows` rows."""
        self.row_backwards += rows

    def record_memory(self, device: torch.device | str) -> None:
        """Set `peak_memory_mb` to the highest use so far: of tensors on a CUDA device, else of the whole process."""
        self.peak_memory_mb = peak_memory_mb(torch.device(device))

    def to_dict(self) -> dict[str, object]:
        """Return the `cost` object of the JSON record; `row_forwards` is an int when whole."""
        rows = round(self.row_forwards, 6)
        return {
            "row_forwards": int(rows) if rows == int(rows) else rows,
            "row_backwards": self.row_backwards,
            "seconds": {name: round(self.seconds[name], 4) for name in (*STAGES, "total")},
            "peak_memory_mb": None if self.peak_memory_mb is None else round(self.peak_memory_mb, 1),
            "cached": {name: self.cached[name] for name in CACHED},
        }


def rows_in(formula: str, share: float = 1.0) -> float:
    """Row forwards that a cost formula adds up to.

    Args:
        formula: as `Method.row_forwards` gives it: terms "name count" joined by " + ", a count perhaps followed by
            "x executed share"; what stands in parentheses is not counted.
        share: executed share of the forwards that are ended early.

    Raises:
        ValueError: a term of another form.
    """
    total = 0.0
    for term in re.sub(r"\([^()]*\)", "", formula).split(" + "):
        found = _TERM.fullmatch(term.strip())
        if found is None:
            raise ValueError(f"cost formula: found {term!r}; allowed: a name and a count")
        total += float(found["count"]) * (share if found["share"] else 1.0)
    return total


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory in MiB: allocated CUDA memory, else the process's resident set; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS reports bytes, Linux and the BSDs KiB
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def truncated_share(unet: nn.Module, sites: Sequence[str], sample_shape: Sequence[int], encoder_tokens: int) -> float:
    """Return the part, in (0, 1], of a forward's multiply-adds done when the last of `sites` fires.

    Where it is not stored (`freectl.denoising.shares`) the same architecture is built on the meta device and run once
    truncated and once whole; the weights of `unet` are not touched. Memoised by configuration, sites and shape.

    Args:
        unet: a diffusers UNet2DConditionModel.
        sites: module names, as for `taps.tap`.
        sample_shape: latent shape ending in (height, width); the batch size does not matter.
        encoder_tokens: length of the text sequence.

    Raises:
        TapError: a site does not exist.
        FreectlError: the UNet needs inputs that are not known here.
    """
    # other entries, such as paths or quantisation settings, say nothing about the architecture
    cls: Any = type(unet)
    built_from = inspect.signature(cls.__init__).parameters
    config = {name: value for name, value in cast(Mapping, unet.config).items() if name in built_from}
    height, width = sample_shape[-2:]
    stored = stored_share(cls.__name__, config, sites, (height, width), encoder_tokens)
    if stored is not None:
        return stored
    return _share(cls, json.dumps(config, sort_keys=True), tuple(sites), (height, width), encoder_tokens)


@lru_cache(maxsize=256)
def _share(cls: Any, config_json: str, sites: tuple[str, ...], size: tuple[int, int], tokens: int) -> float:
    config = json.loads(config_json)
    with torch.device("meta"), torch.no_grad():
        unet = cls.from_config(config).eval()
        part, whole = counted(unet, sites, _meta_inputs(config, size, tokens))
    return part / whole


def _meta_inputs(config: Mapping, size: tuple[int, int], tokens: int) -> dict[str, Any]:
    width = config["encoder_hid_dim"] or config["cross_attention_dim"]
    inputs: dict[str, Any] = {
        "sample": torch.zeros(1, config["in_channels"], *size),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, tokens, width if isinstance(width, int) else max(width)),
    }
    if config["class_embed_type"] or config["num_class_embeds"]:
        raise FreectlError("cannot measure early-ended forwards of a UNet with class embeddings")
    if config["addition_embed_type"] == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs["added_cond_kwargs"] = {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
    elif config["addition_embed_type"]:
        raise FreectlError(
            f"cannot measure early-ended forwards of a UNet with '{config['addition_embed_type']}' inputs"
        )
    return inputs


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()  # kernels still queued belong to the stage that launched them
    return perf_counter()
