"""Settings of the models from label maps."""

from typing import ClassVar, Literal

from pydantic import Field

from gan_baselines.config.base import (
    Discriminator,
    Features,
    InitKind,
    Layout,
    LossMode,
    Model,
    Norm,
)


class Labelled(Model):
    """What both share. `labels` 0: as many as the data has; `instances` follows the data.

    `features_from` is a weights folder of a `classifier`, or a safetensors file of torchvision's VGG; `lambda_vgg` is
    10 in both publications, with VGG-19, and 0 here, where no such file comes with the package.
    """

    layout: ClassVar[Layout] = "labelled"

    labels: int = Field(default=0, ge=0)
    instances: bool = False
    features: Features = Features()
    features_from: str | None = None
    lambda_features: float = Field(default=10.0, ge=0)
    lambda_vgg: float = Field(default=0.0, ge=0)

    @property
    def planes(self) -> int:
        """Planes of a label map."""
        return max(1, self.labels) + self.instances


class Pix2PixHd(Labelled):
    """Pix2PixHD (arXiv 1711.11585). `downs` and `blocks` of the coarse part, which sees halved maps where `fine`."""

    name: Literal["pix2pixhd"] = "pix2pixhd"
    width: int = Field(default=64, ge=1)
    downs: int = Field(default=4, ge=1, le=6)
    blocks: int = Field(default=9, ge=0)
    fine: bool = True
    fine_blocks: int = Field(default=3, ge=0)
    fix_coarse: float = Field(default=0.0, ge=0, le=1)
    discriminator: Discriminator = Discriminator(scales=2, scale_loss="sum")
    loss: LossMode = "lsgan"
    encoder: bool = False
    encoder_width: int = Field(default=16, ge=1)
    encoder_numbers: int = Field(default=3, ge=1)
    encoder_slots: int = Field(default=50, ge=1)

    @property
    def multiple(self) -> int:
        """The halvings of both parts."""
        return 2 ** (self.downs + self.fine)


class SpadeGan(Labelled):
    """SPADE (arXiv 1903.07291). `latent` 256 is its encoder, for pictures of `size`; 0 starts from the map."""

    name: Literal["spade"] = "spade"
    width: int = Field(default=64, ge=1)
    ups: int = Field(default=5, ge=1, le=7)
    hidden: int = Field(default=128, ge=1)
    spade_norm: Literal["batch", "instance"] = "batch"
    latent: int = Field(default=0, ge=0)
    size: int = Field(default=256, ge=8)
    encoder_width: int = Field(default=64, ge=1)
    discriminator: Discriminator = Discriminator(scales=2)
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "hinge"
    init: InitKind = "xavier"
    lambda_kl: float = Field(default=0.05, ge=0)

    @property
    def multiple(self) -> int:
        """The doublings."""
        return 2**self.ups

    @property
    def side(self) -> int | None:
        """`size` where there are latent numbers."""
        return self.size if self.latent else None
