"""What the trainer asks of a model, and what translating and sampling ask of it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

Batch = dict[str, Tensor]
Terms = dict[str, Tensor]
Player = Literal["generator", "discriminator"]
DIRECTIONS = ("AB", "BA")


class Source(NamedTuple):
    """Networks that start from the weights folder named by a setting of the model."""

    setting: str
    kind: Literal["generator", "discriminator", "helper"]
    networks: nn.ModuleDict


class GanModel(nn.Module, ABC):
    """Generators, discriminators and frozen helpers by name, and the loss terms of each side.

    Attributes:
        order: who moves in a step, one after another.
        judged: names of the fakes that the discriminators learn from (each has its pool).
        carried: names of the helpers that translating or sampling needs: they are stored with the weights.
        pool_size: pictures a pool holds; 0 = no pools.
    """

    order: ClassVar[tuple[Player, ...]] = ("generator", "discriminator")
    judged: ClassVar[tuple[str, ...]] = ()
    carried: ClassVar[tuple[str, ...]] = ()
    pool_size: int = 0

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.generators = nn.ModuleDict()
        self.discriminators = nn.ModuleDict()
        self.helpers = nn.ModuleDict()

    def turns(self, step: int) -> tuple[Player, ...]:
        """Who moves in the 0-based `step`; by default both, as `order` says."""
        return self.order

    def sources(self) -> list[Source]:
        """Networks that start from earlier weights, where a setting names their folder."""
        every = [
            Source("generators_from", "generator", self.generators),
            Source("discriminators_from", "discriminator", self.discriminators),
        ]
        return [source for source in every if getattr(self.config, source.setting)]

    def train(self, mode: bool = True) -> Self:
        """Training mode for the players; helpers stay as they work."""
        super().train(mode)
        self.helpers.eval().requires_grad_(False)
        return self

    @abstractmethod
    def generate(self, batch: Batch, progress: float) -> Batch:
        """Return the results of a step, with gradient to the generators; `progress` as below."""

    @abstractmethod
    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Return weighted scalars whose sum the generators minimise. `progress` runs from 0 to 1 over the training."""

    @abstractmethod
    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Return weighted scalars whose sum the discriminators minimise.

        `fakes` are all results of `generate`, detached; those of `judged` come from their pools.
        """

    @abstractmethod
    def preview(self, batch: Batch) -> list[Tensor]:
        """Return columns of a sample grid, (N, 3, H, W) in [-1, 1] each, without gradient."""

    @property
    def translators(self) -> dict[str, nn.Module]:
        """By direction, networks from (N, C, H, W) to a picture of the same size."""
        return {name: net for name, net in self.generators.items() if name in DIRECTIONS}

    def parts(self, direction: str) -> tuple[str, ...]:
        """Names of the generators that a direction needs."""
        return (direction,)
