"""What the trainer asks of a model."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

Batch = dict[str, Tensor]
Terms = dict[str, Tensor]
Player = Literal["generator", "discriminator"]


class GanModel(nn.Module, ABC):
    """Generators and discriminators by name, and the loss terms of each side.

    Attributes:
        order: who moves first in a step.
        judged: names of the fakes that the discriminators learn from (each has its pool).
        pool_size: pictures a pool holds; 0 = no pools.
    """

    order: ClassVar[tuple[Player, Player]] = ("generator", "discriminator")
    judged: ClassVar[tuple[str, ...]] = ()
    pool_size: int = 0

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.generators = nn.ModuleDict()
        self.discriminators = nn.ModuleDict()

    @abstractmethod
    def generate(self, batch: Batch) -> Batch:
        """Return the fakes of a step, with gradient to the generators."""

    @abstractmethod
    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Return weighted scalars whose sum the generators minimise. `progress` runs from 0 to 1 over the training."""

    @abstractmethod
    def discriminator_terms(self, batch: Batch, fakes: Batch) -> Terms:
        """Return weighted scalars whose sum the discriminators minimise. `fakes` come detached."""

    @abstractmethod
    def preview(self, batch: Batch) -> list[Tensor]:
        """Return columns of a sample grid, (N, 3, H, W) in [-1, 1] each, without gradient."""
