"""Settings of a run: closed, frozen, checked once. Nothing here imports torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LossMode = Literal["vanilla", "lsgan", "hinge"]
NormKind = Literal["batch", "instance", "group", "spectral", "none"]
Layout = Literal["single", "paired", "unpaired"]
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
    """A picture-to-picture network. `blocks`, `up`, `pad` belong to resnet; `downs`, `skips` to unet.

    `downs` halvings take a side that 2**downs divides; resnet takes a side that 4 divides.
    """

    kind: Literal["resnet", "unet"] = "resnet"
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=9, ge=0)
    up: Literal["deconv", "resize"] = "deconv"
    pad: Literal["reflect", "replicate", "zero"] = "reflect"
    downs: int = Field(default=8, ge=3, le=10)
    skips: bool = True
    dropout: bool = False

    @property
    def stride(self) -> int:
        """Picture sides must be multiples of this, in px."""
        return 4 if self.kind == "resnet" else 2**self.downs


class Discriminator(Closed):
    """A patch discriminator. `n_layers` 0, 1, 2, 3, 4, 5 see 1, 16, 34, 70, 142, 286 px; `scales` halve the picture."""

    n_layers: int = Field(default=3, ge=0, le=6)
    width: int = Field(default=64, ge=1)
    scales: int = Field(default=1, ge=1, le=4)

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


class Dcgan(Closed):
    """DCGAN (arXiv 1511.06434): noise to picture."""

    name: Literal["dcgan"] = "dcgan"
    size: int = Field(default=64, ge=8, le=1024)
    noise: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    loss: LossMode = "vanilla"

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.size & (self.size - 1):
            raise ValueError(f"size {self.size} is not a power of two")
        return self


class Pix2Pix(Closed):
    """Pix2Pix (arXiv 1611.07004).

    `gan`, `lambda_l1`, `conditional`, `generator.skips` and `discriminator.n_layers` are the switches of its ablation
    tables; `norm=group` is the variant for small batches.
    """

    name: Literal["pix2pix"] = "pix2pix"
    generator: Generator = Generator(kind="unet", dropout=True)
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="batch")
    loss: LossMode = "vanilla"
    gan: bool = True
    conditional: bool = True
    lambda_l1: float = Field(default=100.0, ge=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.gan and self.lambda_l1 == 0:
            raise ValueError("gan=false with lambda_l1=0 leaves no loss")
        return self


class CycleGan(Closed):
    """CycleGAN (arXiv 1703.10593). `lambda_identity` is relative to `lambda_cycle`; 0 saves two of six passes."""

    name: Literal["cyclegan"] = "cyclegan"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    cycle_norm: Literal["l1", "l2"] = "l1"
    lambda_cycle: float = Field(default=10.0, ge=0)
    lambda_identity: float = Field(default=0.5, ge=0)
    pool: int = Field(default=50, ge=0)


class ModifiedCycleGan(CycleGan):
    """CycleGAN with better cycles (arXiv 2408.15374): feature-level cycle, decaying weight, quality weighting.

    alpha grows linearly from `alpha_start` to `alpha_end` < 1, lambda falls from `lambda_cycle` to `lambda_end` > 0.
    `feature_layer` indexes the discriminator's feature list. `discriminators_from` is a weights folder.
    """

    name: Literal["modified-cyclegan"] = "modified-cyclegan"  # type: ignore[assignment]
    lambda_identity: float = Field(default=0.0, ge=0)
    lambda_cycle: float = Field(default=10.0, gt=0)
    lambda_end: float = Field(default=1.0, gt=0)
    alpha_start: float = Field(default=0.0, ge=0, lt=1)
    alpha_end: float = Field(default=0.9, ge=0, lt=1)
    quality: Literal["none", "fake", "real"] = "fake"
    feature_layer: int = -1
    discriminators_from: str | None = None

    @model_validator(mode="after")
    def _directions(self) -> Self:
        if self.lambda_end > self.lambda_cycle:
            raise ValueError(f"lambda_end {self.lambda_end} is above lambda_cycle {self.lambda_cycle}: it decays")
        count = self.discriminator.features
        if not -count <= self.feature_layer < count:
            raise ValueError(f"feature_layer {self.feature_layer} of a discriminator with {count} feature maps")
        if self.alpha_end < self.alpha_start:
            raise ValueError(f"alpha_end {self.alpha_end} is below alpha_start {self.alpha_start}: it grows")
        return self


ModelConfig = Annotated[Dcgan | Pix2Pix | CycleGan | ModifiedCycleGan, Field(discriminator="name")]


class Data(Closed):
    """How pictures become batches. `load_size` resizes (px, square) before a random crop to `size`; None keeps sizes.

    `rotate` (degrees) and `stretch` (relative, 0.1 = up to 10 %) bound random distortions, for DCGAN on small sets.
    A side's pictures are kept in memory as uint8 where they need at most `memory_mb`.
    """

    size: int | None = Field(default=None, ge=4)
    load_size: int | None = Field(default=None, ge=4)
    flip: bool = True
    rotate: float = Field(default=0.0, ge=0, le=180)
    stretch: float = Field(default=0.0, ge=0, lt=1)
    memory_mb: int = Field(default=2000, ge=0)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.size and self.load_size and self.load_size < self.size:
            raise ValueError(f"load_size {self.load_size} is below size {self.size}")
        return self


class Train(Closed):
    """Optimisation and bookkeeping. `steps` overrides `epochs`; the last decay_epochs/epochs of the run decay linearly.

    `ema` 0 switches the average off. `threads` None takes every core this process may use. Intervals are in steps.
    """

    epochs: int = Field(default=200, ge=1)
    decay_epochs: int = Field(default=100, ge=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=1, ge=1)
    lr: float = Field(default=2e-4, gt=0)
    lr_discriminator: float | None = Field(default=None, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    cpu: bool = False
    threads: int | None = Field(default=None, ge=1)
    fused_adam: bool = True
    log_every: int = Field(default=50, ge=1)
    sample_every: int = Field(default=500, ge=1)
    checkpoint_every: int = Field(default=1000, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    tracker: Literal["auto", "none", "tensorboard", "trackio"] = "auto"

    @model_validator(mode="after")
    def _decay_fits(self) -> Self:
        if self.decay_epochs > self.epochs:
            raise ValueError(f"decay_epochs {self.decay_epochs} is above epochs {self.epochs}")
        return self


class RunConfig(Closed):
    """Everything that decides a training run, beside the pictures."""

    model: ModelConfig
    data: Data = Data()
    train: Train = Train()


MODELS: dict[str, type[Closed]] = {
    "dcgan": Dcgan,
    "pix2pix": Pix2Pix,
    "cyclegan": CycleGan,
    "modified-cyclegan": ModifiedCycleGan,
}

# canonical training settings where they differ from the field defaults
CANONICAL: dict[str, dict[str, Any]] = {
    "dcgan": {"data": {"flip": False}, "train": {"batch_size": 64, "epochs": 25, "decay_epochs": 0}},
    "pix2pix": {},
    "cyclegan": {},
    "modified-cyclegan": {},
}


def layout_of(model: str) -> Layout:
    """The folder layout that a model trains on."""
    layouts: dict[str, Layout] = {"dcgan": "single", "pix2pix": "paired"}
    return layouts.get(model, "unpaired")
