"""What the settings of all models share: closed, frozen, checked once. Nothing here imports torch."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LossMode = Literal["vanilla", "lsgan", "hinge", "wgangp"]
ScaleLoss = Literal["mean", "sum"]
InitKind = Literal["normal", "xavier", "kaiming"]
NormKind = Literal["batch", "instance", "group", "layer", "spectral", "weight", "none"]
Layout = Literal["single", "paired", "unpaired", "labelled", "captioned", "classed"]
LEAST_SIDE = 8  # px: on less a norm or a mirrored edge inside a generator has one position to work on


class Closed(BaseModel):
    """Base of all settings: unknown names and infinite numbers are errors, values cannot be changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Norm(Closed):
    """Normalisation of a network. `groups` or `channels_per_group` belong to kind "group" (default: 32 groups)."""

    kind: NormKind = "instance"
    groups: int | None = Field(default=None, ge=1)
    channels_per_group: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_grouping(self) -> Self:
        if self.groups and self.channels_per_group:
            raise ValueError("groups and channels_per_group exclude each other")
        if self.kind != "group" and (self.groups or self.channels_per_group):
            raise ValueError(f"groups apply to kind 'group', not to '{self.kind}'")
        return self


class Generator(Closed):
    """A picture-to-picture network. `blocks`, `up`, `pad`, `ends` belong to resnet; `downs`, `skips` to unet.

    `ends` is the side of the first and the last kernel, px. `downs` halvings take a side that 2**downs divides; resnet
    takes a side that 4 divides.
    """

    kind: Literal["resnet", "unet"] = "resnet"
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=9, ge=0)
    up: Literal["deconv", "resize"] = "deconv"
    pad: Literal["reflect", "replicate", "zero"] = "reflect"
    ends: Literal[3, 5, 7, 9] = 7
    downs: int = Field(default=8, ge=3, le=10)
    skips: bool = True
    dropout: bool = False

    @property
    def stride(self) -> int:
        """Picture sides must be multiples of this, in px."""
        return 4 if self.kind == "resnet" else 2**self.downs


class Discriminator(Closed):
    """A patch discriminator. `n_layers` 0, 1, 2, 3, 4, 5 see 1, 16, 34, 70, 142, 286 px; `scales` halve the picture.

    `scale_loss`: the terms of the scales are averaged, or added up as the codes with published weights do.
    """

    n_layers: int = Field(default=3, ge=0, le=6)
    width: int = Field(default=64, ge=1)
    scales: int = Field(default=1, ge=1, le=4)
    scale_loss: ScaleLoss = "mean"

    @property
    def smallest(self) -> int:
        """Smallest picture side in px: the strided layers must leave a 3x3 map for the last two convolutions.

        Without strided layers a 2x2 map: a norm over (H, W) needs more than one position.
        """
        return (3 * 2**self.n_layers if self.n_layers else 2) * 2 ** (self.scales - 1)

    @property
    def features(self) -> int:
        """Maps in the feature list: one for each layer before the logits, scale after scale."""
        return (self.n_layers + 1 if self.n_layers else 2) * self.scales


class Features(Closed):
    """A feature network: `small` with `width` and `stages` (each halves by `pool`), or torchvision's VGG."""

    kind: Literal["small", "vgg16", "vgg19"] = "small"
    width: int = Field(default=24, ge=1)
    stages: int = Field(default=4, ge=1, le=6)
    pool: Literal["max", "mean"] = "max"

    @model_validator(mode="after")
    def _vgg_has_five(self) -> Self:
        if self.kind != "small" and self.stages != 5:
            raise ValueError(f"{self.kind} has 5 stages, not {self.stages}")
        return self


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"{value} is not a power of two")
    return value


PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]


Form = Literal["rgb", "grey", "grey16", "rgba"]
CHANNELS: dict[Form, int] = {"rgb": 3, "grey": 1, "grey16": 1, "rgba": 4}


class Model(Closed):
    """What the settings of every model have.

    `generators_from` and `discriminators_from` are weights folders to train on from, one or several between commas: all
    networks of that side must be in them and have the configured shapes. `init` draws the weights otherwise.
    `diff_augment` changes colours and places of what discriminators see (arXiv 2006.10738), for small sets.
    """

    layout: ClassVar[Layout] = "unpaired"

    init: InitKind = "normal"
    diff_augment: bool = False
    generators_from: str | None = None
    discriminators_from: str | None = None

    @property
    def multiple(self) -> int:
        """Picture sides must be multiples of this, in px."""
        return getattr(self, "generator").stride  # noqa: B009 - models that translate declare it

    def form(self, side: str) -> Form:
        """What the pictures of a side, such as "A", are read as and written as."""
        return getattr(self, f"form_{side.lower()}", "rgb")

    @property
    def side(self) -> int | None:
        """The one picture side that the networks take, in px; None where they take any multiple."""
        return None
