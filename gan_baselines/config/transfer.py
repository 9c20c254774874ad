"""Settings of the unpaired models beside CycleGAN."""

from typing import ClassVar, Literal

from pydantic import Field

from gan_baselines.config.base import (
    Discriminator,
    Features,
    Generator,
    InitKind,
    Layout,
    LossMode,
    Model,
    Norm,
    PowerOfTwo,
)

THREE_SCALES = Discriminator(scales=3, scale_loss="sum")


class DiscoGan(Model):
    """DiscoGAN (arXiv 1703.05192). `variant` gan and recongan are the paper's two baselines, in one direction.

    `feature_share` of the judgement is feature matching. `reconstruction` comes after the share `curriculum` of steps.
    """

    name: Literal["discogan"] = "discogan"
    variant: Literal["discogan", "recongan", "gan"] = "discogan"
    size: PowerOfTwo = Field(default=64, ge=16, le=1024)
    width: int = Field(default=64, ge=1)
    norm: Norm = Norm(kind="batch")
    loss: LossMode = "vanilla"
    feature_share: float = Field(default=0.9, ge=0, le=1)
    reconstruction_start: float = Field(default=0.01, ge=0, le=1)
    reconstruction: float = Field(default=0.5, ge=0, le=1)
    curriculum: float = Field(default=0.2, ge=0, le=1)

    @property
    def side(self) -> int:
        """`size`."""
        return self.size

    @property
    def multiple(self) -> int:
        """Four halvings."""
        return 16


class Dtn(Model):
    """DTN (arXiv 1611.02200). alpha `lambda_constancy`, beta `lambda_identity`, gamma `lambda_variation`.

    `features_from` is a weights folder of a `classifier` whose `features` are these.
    """

    name: Literal["dtn"] = "dtn"
    size: PowerOfTwo = Field(default=64, ge=16, le=1024)
    width: int = Field(default=64, ge=1)
    features: Features = Features()
    features_from: str | None = None
    lambda_constancy: float = Field(default=15.0, ge=0)
    lambda_identity: float = Field(default=15.0, ge=0)
    lambda_variation: float = Field(default=0.0, ge=0)
    init: InitKind = "normal"

    @property
    def side(self) -> int:
        """`size`."""
        return self.size

    @property
    def multiple(self) -> int:
        """The halvings of f."""
        return 2**self.features.stages


class SimGan(Model):
    """SimGAN (arXiv 1612.07828) on CycleGAN's networks. `generator_turns` 0: both players move in each step."""

    name: Literal["simgan"] = "simgan"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    lambda_content: float = Field(default=10.0, ge=0)
    pool: int = Field(default=50, ge=0)
    generator_turns: int = Field(default=0, ge=0)
    discriminator_turns: int = Field(default=1, ge=1)
    warm_generator: int = Field(default=0, ge=0)
    warm_discriminator: int = Field(default=0, ge=0)


class FeatureGan(SimGan):
    """Feature loss + GAN (arXiv 1703.10593, section 5.1.1). `feature_layer` counts the activations of `features`.

    `features_from` is a weights folder of a `classifier`, or a safetensors file of torchvision's VGG.
    """

    name: Literal["feature-gan"] = "feature-gan"  # type: ignore[assignment]
    features: Features = Features()
    features_from: str | None = None
    feature_layer: int = -1


class BiGan(Model):
    """BiGAN/ALI between collections (arXiv 1605.09782, 1606.00704; as 1703.10593, section 5.1.1)."""

    name: Literal["bigan"] = "bigan"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    pool: int = Field(default=50, ge=0)


class CoGan(Model):
    """CoGAN (arXiv 1606.07536). `own_` layers belong to one domain each, the others are shared; `search` translates."""

    name: Literal["cogan"] = "cogan"
    size: PowerOfTwo = Field(default=64, ge=16, le=1024)
    noise: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    loss: LossMode = "vanilla"
    own_generator: int = Field(default=1, ge=1)
    own_discriminator: int = Field(default=1, ge=1)
    search: int = Field(default=1000, ge=1)
    search_rate: float = Field(default=0.05, gt=0)

    @property
    def side(self) -> int:
        """`size`."""
        return self.size

    @property
    def multiple(self) -> int:
        """`size`."""
        return self.size


class Unit(Model):
    """UNIT (arXiv 1703.00848). `blocks` residual blocks of each encoder and decoder, beside the shared ones."""

    name: Literal["unit"] = "unit"
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=3, ge=0)
    tied: bool = True
    discriminator: Discriminator = THREE_SCALES
    loss: LossMode = "vanilla"
    init: InitKind = "kaiming"
    lambda_gan: float = Field(default=10.0, ge=0)
    lambda_l1: float = Field(default=100.0, ge=0)
    lambda_kl: float = Field(default=0.1, ge=0)
    lambda_cycle: float = Field(default=100.0, ge=0)
    lambda_cycle_kl: float = Field(default=0.1, ge=0)

    @property
    def multiple(self) -> int:
        """Two halvings."""
        return 4


class Munit(Model):
    """MUNIT (arXiv 1804.04732). `style` numbers; `lambda_cycle` is 0 or 10 in the published settings."""

    name: Literal["munit"] = "munit"
    width: int = Field(default=64, ge=1)
    blocks: int = Field(default=4, ge=1)
    style: int = Field(default=8, ge=1)
    discriminator: Discriminator = THREE_SCALES
    loss: LossMode = "lsgan"
    init: InitKind = "kaiming"
    lambda_gan: float = Field(default=1.0, ge=0)
    lambda_picture: float = Field(default=10.0, ge=0)
    lambda_content: float = Field(default=1.0, ge=0)
    lambda_style: float = Field(default=1.0, ge=0)
    lambda_cycle: float = Field(default=0.0, ge=0)

    @property
    def multiple(self) -> int:
        """Two halvings."""
        return 4


class GcGan(Model):
    """GcGAN (arXiv 1809.05852). `lambda_geometry` 20 is the published code's 10 times 2; `lambda_identity` times 10."""

    name: Literal["gcgan"] = "gcgan"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    init: InitKind = "xavier"
    pool: int = Field(default=50, ge=0)
    transform: Literal["rot90", "vflip"] = "rot90"
    lambda_geometry: float = Field(default=20.0, ge=0)
    lambda_identity: float = Field(default=0.5, ge=0)


class Classifier(Model):
    """A classifier that is trained for its features. `classes` empty: the folders of the data."""

    layout: ClassVar[Layout] = "classed"

    name: Literal["classifier"] = "classifier"
    features: Features = Features()
    classes: tuple[str, ...] = ()
    init: InitKind = "kaiming"

    @property
    def multiple(self) -> int:
        """The halvings of the trunk."""
        return 2**self.features.stages
