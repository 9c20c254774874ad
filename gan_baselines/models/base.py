"""What the trainer asks of a model, and what translating and sampling ask of it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from gan_baselines.errors import InputError

Batch = dict[str, Tensor]
Terms = dict[str, Tensor]
Player = Literal["generator", "discriminator"]
DIRECTIONS = ("AB", "BA")


class Source(NamedTuple):
    """Networks that start from the weights folder named by a setting of the model.

    A helper needs one: it stays as it is. "random" leaves it as it was drawn.
    """

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
        # Any: networks have methods of their own, such as `style`, which the type of ModuleDict hides
        self.generators: Any = nn.ModuleDict()
        self.discriminators = nn.ModuleDict()
        self.helpers: Any = nn.ModuleDict()

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

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """What a `Direction` of this model computes. `style` (N, numbers) chooses among answers; None draws it."""
        raise TypeError(f"{type(self).__name__} does not translate")

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """The style (1, numbers) of a target picture (1, 3, H, W), for `translate`.

        Raises:
            InputError: the model gives one answer to a picture.
        """
        raise InputError(
            "--style", f"a picture, beside weights of a {self.config.name}", "bicyclegan, munit or adain weights"
        )

    @property
    def sampler(self) -> nn.Module | None:
        """The network from noise (N, numbers) and condition to pictures; `noise` says how many numbers."""
        return None

    def drawn(self, z: Tensor, condition: Any) -> Tensor:
        """What a `Sampler` of this model computes; `condition` is a tensor or None."""
        raise TypeError(f"{type(self).__name__} does not sample")

    def condition(self, label: str | None, prompt: str | None, code: list[float] | None) -> Tensor | None:
        """The condition (numbers,) of samples: a class, words, or latent numbers in their places.

        Raises:
            InputError: one that the model does not know.
        """
        asked = {"--class": label, "--prompt": prompt, "--code": code}
        for option, value in asked.items():
            if value is not None:
                raise InputError(option, f"'{value}' for a {self.config.name}", "nothing: it draws from noise alone")
        return None

    def some_condition(self) -> Tensor | None:
        """A condition (numbers,) that the model knows, for whoever needs its shape; None where it takes none."""
        return None

    def conditions(self, marks: dict[str, Tensor]) -> Tensor | None:
        """Conditions (N, numbers) of the classes or captions of N pictures, as they come in a batch."""
        return None


class Sampler(nn.Module):
    """What a model draws from `noise` normal numbers and a condition, as a network of its own."""

    def __init__(self, model: GanModel, noise: int) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, noise) and (N, numbers) to pictures."""
        return self.model.drawn(z, condition)


class Direction(nn.Module):
    """A direction of a model whose networks share work between directions, as a network of its own."""

    def __init__(self, model: GanModel, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to a picture of the same size."""
        return self.model.translate(self.name, x, style)
