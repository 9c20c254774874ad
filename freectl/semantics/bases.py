"""Semantic bases: the principal directions of diffusion features, one basis for each timestep and tapped layer.

FreeControl (arXiv 2312.07536), analysis stage: B_t holds the first N_b principal directions of the keys of the seed
images at timestep t, mu_t their mean, and s = (F - mu_t) B_t^T are semantic coordinates.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from freectl.denoising.path import time_of
from freectl.errors import FreectlError, InputError
from freectl.files import tensor_files
from freectl.files.paths import check_file
from freectl.files.record import atomic_write

FORMAT_VERSION = 1
_FIELDS = ("mean", "components", "explained_variance")
_TOTAL = "total_variance"
APART = 3.0
"""Tolerances between two stored timesteps: a flow's 50 steps lie 42 apart where guidance ends, a diffusion's 20."""
_TIME = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Basis:
    """Principal directions of one feature set, fp32.

    Attributes:
        mean: (C,).
        components: (n, C), orthonormal rows by decreasing variance. In each row the entry of largest absolute value
            is positive (the first one on ties), since eigenvectors leave the sign open and the background and
            appearance energies depend on it.
        explained_variance: (n,), unbiased (divided by rows - 1).
        total_variance: (), of all C directions; None in files written before it was kept.
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    total_variance: Tensor | None = None

    def project(self, x: Tensor) -> Tensor:
        """Return the semantic coordinates (..., n) of features (..., C), in fp32, or fp64 for fp64 features."""
        wide = x if x.dtype == torch.float64 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            return (wide - self.mean.to(wide)) @ self.components.to(wide).T

    def to(self, device: torch.device | str) -> "Basis":
        """Return the basis on `device`."""
        total = None if self.total_variance is None else self.total_variance.to(device)
        return Basis(self.mean.to(device), self.components.to(device), self.explained_variance.to(device), total)

    def variance(self) -> Tensor:
        """Total variance of the features, (); that of the kept components where no other is known."""
        return self.explained_variance.sum() if self.total_variance is None else self.total_variance

    def explained_share(self) -> Tensor:
        """Share of the variance that the first 1, 2, ... n components explain, (n,), increasing.

        Of the total variance where it is known, else of that of the kept components.
        """
        total = self.variance()
        return self.explained_variance.cumsum(0) / total.clamp(min=torch.finfo(total.dtype).tiny)


@dataclass
class _Moments:
    shift: Tensor  # (C,)
    total: Tensor  # (C,), fp64, of rows - shift
    gram: Tensor  # (C, C), fp64, of rows - shift


class GramAccumulator:
    """Streamed covariance of feature rows: memory is one C x C matrix, however many rows are added."""

    def __init__(self) -> None:
        self.count = 0
        self._moments: _Moments | None = None

    @property
    def channels(self) -> int:
        """Number of channels seen, 0 before the first rows."""
        return 0 if self._moments is None else self._moments.shift.shape[0]

    def add(self, rows: Tensor) -> None:
        """Add rows (..., C) of any floating dtype.

        Raises:
            InputError: the number of channels differs from that of earlier rows.
        """
        rows = rows.detach().reshape(-1, rows.shape[-1])
        if rows.shape[0] == 0:
            return
        # fp64 products are slow on most GPUs and missing on mps: there only the sums over calls are fp64
        product = torch.float64 if rows.device.type == "cpu" else torch.float32
        store = torch.device("cpu") if rows.device.type == "mps" else rows.device
        rows = rows.to(product)
        channels = rows.shape[1]
        if self._moments is None:
            total = torch.zeros(channels, dtype=torch.float64, device=store)
            # subtracting a mean close to the final one keeps large offsets from swamping the variance
            self._moments = _Moments(rows.mean(0), total, total.new_zeros(channels, channels))
        moments = self._moments
        if channels != len(moments.shift):
            raise InputError("rows", f"{channels} channels", f"{len(moments.shift)}, as in the rows before")
        centred = rows - moments.shift.to(rows)
        self.count += rows.shape[0]
        moments.total += centred.sum(0).to(store).double()
        moments.gram += (centred.T @ centred).to(store).double()

    def solve(self, n: int) -> Basis:
        """Return the first `n` principal directions of all rows added so far.

        Raises:
            InputError: `n` is below 1, above the channels, or not below the number of rows.
            FreectlError: the rows held NaN or infinite values.
        """
        moments = self._moments
        if moments is None or self.count < 2:
            raise InputError("components", f"{n} components for {self.count} rows", "2 rows or more")
        limit = min(len(moments.shift), self.count - 1)
        if not 1 <= n <= limit:
            found = f"{n} components for {self.count} rows of {len(moments.shift)} channels"
            raise InputError("components", found, f"1 to {limit}")
        if not torch.isfinite(moments.gram).all():
            raise FreectlError("features hold NaN or infinite values: use a wider dtype (bf16 or fp32)")
        offset = moments.total / self.count
        covariance = (moments.gram - self.count * torch.outer(offset, offset)) / (self.count - 1)
        variance, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        components = _fix_signs(vectors.T.flip(0)[:n])
        mean = moments.shift.to(offset.device).double() + offset
        variance = variance.flip(0).clamp(min=0)
        return Basis(mean.float(), components.float(), variance[:n].float(), variance.sum().float())


def _fix_signs(components: Tensor) -> Tensor:
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -components, components)


@dataclass
class SemanticBases(Mapping[tuple[float, str], Basis]):
    """Bases by (time of a level, site), never by step index, so that any step count can use them.

    Attributes:
        entries: (time, site) -> Basis.
        metadata: JSON-able facts: model fingerprint, prompt, seeds, features mode, scheduler, size.
    """

    entries: dict[tuple[float, str], Basis] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)

    def __getitem__(self, key: tuple[float, str]) -> Basis:
        return self.entries[key]

    def __iter__(self) -> Iterator[tuple[float, str]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def timesteps(self, site: str) -> list[float]:
        """Return the stored timesteps of `site`, increasing.

        Raises:
            InputError: nothing is stored for the site.
        """
        stored = sorted(t for t, name in self.entries if name == site)
        if not stored:
            sites = sorted({name for _, name in self.entries})
            near = difflib.get_close_matches(site, sites, n=3) or sites[:3]
            raise InputError("site", f"'{site}'", f"sites with a basis, such as {', '.join(near) or '(none stored)'}")
        return stored

    def at(self, timestep: float, site: str, tolerance: float | None = None) -> Basis:
        """Return the basis of the stored timestep nearest to `timestep` (the smaller one on ties).

        Args:
            timestep: 0 to 999 in Stable Diffusion.
            site: module name.
            tolerance: largest accepted distance; between stored timesteps of which the next is no more than `APART`
                times as far, the nearer one always serves. Default: half of the largest gap between them, plus 1.

        Raises:
            InputError: unknown site, or no basis within the tolerance.
        """
        stored = self.timesteps(site)
        if tolerance is None:
            gaps = [after - before for before, after in pairwise(stored)]
            tolerance = max(gaps, default=0) / 2 + 1
        nearest = min(stored, key=lambda t: (abs(t - timestep), t))
        between = [after - before for before, after in pairwise(stored) if before <= timestep <= after]
        if abs(nearest - timestep) > tolerance and not 0 < min(between, default=0) <= APART * tolerance:
            allowed = f"within {tolerance:g} of a stored one; stored are {len(stored)} from {stored[0]} to {stored[-1]}"
            raise InputError("timestep", f"{timestep}, nearest basis at {nearest}", allowed)
        return self.entries[nearest, site]

    def tensors(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return "{timestep}/{site}/{field}" -> CPU tensor; only components are stored in `dtype`."""
        flat = {}
        for (timestep, site), basis in self.entries.items():
            for name in _FIELDS:
                # means and variances are small to store and may exceed the range of fp16
                kind = dtype if name == "components" else torch.float32
                flat[f"{timestep}/{site}/{name}"] = getattr(basis, name).to("cpu", kind).contiguous()
            if basis.total_variance is not None:
                flat[f"{timestep}/{site}/{_TOTAL}"] = basis.total_variance.to("cpu", torch.float32)
        return flat

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, object], option: str = "bases"
    ) -> "SemanticBases":
        """Rebuild bases, in fp32, from what `tensors` returned.

        Args:
            option: what asked for them, for the message.

        Raises:
            InputError: a name does not fit, or a basis is incomplete.
        """
        parts: dict[tuple[float, str], dict[str, Tensor]] = {}
        for key, value in tensors.items():
            timestep, _, rest = key.partition("/")
            site, _, name = rest.rpartition("/")
            if not _TIME.fullmatch(timestep) or not site or name not in (*_FIELDS, _TOTAL):
                raise InputError(option, f"bases with a tensor '{key}'", "TIME/LAYER/NAME, as `save` writes them")
            parts.setdefault((time_of(timestep), site), {})[name] = value.float()
        for (step, site), part in parts.items():
            if not set(_FIELDS) <= set(part):
                found = f"bases that are incomplete at timestep {step:g}, site '{site}'"
                raise InputError(option, found, tensor_files.BASES)
        return cls({key: Basis(**part) for key, part in parts.items()}, dict(metadata))

    def save(self, path: Path | str, dtype: torch.dtype = torch.float32) -> None:
        """Write one safetensors file, whole or not at all; metadata go into its header as JSON.

        Args:
            dtype: of the components; fp16 halves the size.

        Raises:
            FreectlError: the file cannot be written, or the disk is full.
        """
        header = {**self.metadata, "format_version": FORMAT_VERSION}
        payload = safetensors_torch.save(self.tensors(dtype), {name: json.dumps(v) for name, v in header.items()})
        try:
            with atomic_write(path) as stream:
                stream.write(payload)
        except OSError as error:
            raise FreectlError(f"bases: could not write '{path}': {error.strerror or error}") from error

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu", option: str = "bases") -> "SemanticBases":
        """Read a file that `save` wrote; components come back in fp32.

        Args:
            option: what asked for it, for the message.

        Raises:
            InputError: there is no such file, it is damaged, is not a bases file, or has another format version.
        """
        tensor_files.checked(check_file(path, option, tensor_files.BASES), option, allowed=tensor_files.BASES)
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise InputError(option, f"'{path}', damaged or of another kind ({error})", tensor_files.BASES) from error
        version = metadata.pop("format_version", None)
        if version != FORMAT_VERSION:
            allowed = f"{FORMAT_VERSION}, which this version reads: build them again"
            raise InputError(option, f"'{path}' of the bases format {version}", allowed)
        return cls.from_tensors(tensors, metadata, option)
