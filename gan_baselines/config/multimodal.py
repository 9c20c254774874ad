"""Settings of the models with latent numbers or classes."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import (
    Discriminator,
    Generator,
    InitKind,
    Layout,
    LossMode,
    Model,
    Norm,
    PowerOfTwo,
)


class BicycleGan(Model):
    """BicycleGAN (arXiv 1711.11586). `everywhere`: z enters each layer of the U-Net's encoder, else its input alone."""

    layout: ClassVar[Layout] = "paired"

    name: Literal["bicyclegan"] = "bicyclegan"
    generator: Generator = Generator(kind="unet", dropout=True)
    discriminator: Discriminator = Discriminator(scales=2, scale_loss="sum")
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    init: InitKind = "xavier"
    encoded: bool = True
    drawn: bool = True
    conditional: bool = False
    latent: int = Field(default=8, ge=1)
    everywhere: bool = True
    encoder_width: int = Field(default=64, ge=1)
    encoder_blocks: int = Field(default=4, ge=0)
    lambda_l1: float = Field(default=10.0, ge=0)
    lambda_kl: float = Field(default=0.01, ge=0)
    lambda_latent: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _one_branch(self) -> Self:
        if not (self.encoded or self.drawn):
            raise ValueError("encoded=false with drawn=false leaves no branch")
        if self.generator.kind != "unet":
            raise ValueError(f"generator.kind {self.generator.kind}: latent numbers enter a unet")
        return self


class CvaeGan(Model):
    """CVAE-GAN (arXiv 1703.10155). `classes` empty: the folders of the data."""

    layout: ClassVar[Layout] = "classed"

    name: Literal["cvaegan"] = "cvaegan"
    size: PowerOfTwo = Field(default=64, ge=8, le=1024)
    latent: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    loss: LossMode = "vanilla"
    classes: tuple[str, ...] = ()
    lambda_kl: float = Field(default=3.0, ge=0)
    lambda_g: float = Field(default=1.0, ge=0)
    lambda_gd: float = Field(default=1e-3, ge=0)
    lambda_gc: float = Field(default=1e-3, ge=0)

    @property
    def side(self) -> int:
        """`size`."""
        return self.size


class InfoGan(Model):
    """InfoGAN (arXiv 1606.03657) on DCGAN's networks. `lambda_information` 0 leaves the codes to chance."""

    layout: ClassVar[Layout] = "single"

    name: Literal["infogan"] = "infogan"
    size: PowerOfTwo = Field(default=64, ge=8, le=1024)
    noise: int = Field(default=62, ge=0)
    categories: int = Field(default=10, ge=2)
    continuous: int = Field(default=2, ge=0)
    width: int = Field(default=64, ge=1)
    loss: LossMode = "vanilla"
    lambda_information: float = Field(default=1.0, ge=0)

    @property
    def side(self) -> int:
        """`size`."""
        return self.size
