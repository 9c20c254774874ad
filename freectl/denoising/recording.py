"""Features read from forwards that are made anyway."""

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from freectl.denoising.sampler import Denoiser, Lane, RowKey
from freectl.denoising.taps import tap

Take = Callable[[float, Mapping[str, Tensor], Tensor], None]


class Recording(Denoiser):
    """A denoiser that also reads some sites at some times, from the forwards that are made anyway.

    Args:
        inner: what it is otherwise. sites: tapped modules. times: at which they are read.
        take: called with the time, site -> what passed it (rows, ...), and the latents (rows, C, h, w).
    """

    def __init__(self, inner: Denoiser, sites: Sequence[str], times: Collection[float], take: Take) -> None:
        kept = (inner.read, inner.rescale, inner.parts, inner.told)
        super().__init__(inner.network, inner.call, inner.attention_kwargs, *kept)
        self.sites, self.times, self.take = sites, frozenset(times), take

    def rows(self, lanes: Mapping[str, Lane], keys: Sequence[RowKey], timestep: float) -> dict[RowKey, Tensor]:
        """As `Denoiser.rows`."""
        if timestep not in self.times:
            return super().rows(lanes, keys, timestep)
        with tap(self.network, self.sites) as seen:
            outputs = super().rows(lanes, keys, timestep)
        self.take(timestep, seen.pop_all(), lanes[keys[0][0]].latents)
        return outputs
