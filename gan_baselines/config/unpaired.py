"""Settings of the models that learn from two collections without pairs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import CHANNELS, Discriminator, Form, Generator, LossMode, Model, Norm


class CycleGan(Model):
    """CycleGAN (arXiv 1703.10593). `lambda_identity` is relative to `lambda_cycle`; 0 saves two of six passes.

    `one_discriminator` judges both collections (tells neither from the other, only real from made).
    `cycles` forward keeps |F(G(a)) - a| alone, backward |G(F(b)) - b| (its table 4). `lambda_latent` weighs a cycle of
    codes, |z_F(G(a)) - z_G(a)|, z being the middle of a generator; ours, after the lectures' outlook.
    `lambda_gan` 0 leaves the cycle alone.
    `form_a`, `form_b` say what pictures are: rgb, grey (of 8 or 16 bits) or rgba; the identity loss and one
    discriminator ask for equal channels.
    """

    name: Literal["cyclegan"] = "cyclegan"
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="instance")
    loss: LossMode = "lsgan"
    cycle_norm: Literal["l1", "l2"] = "l1"
    lambda_gan: float = Field(default=1.0, ge=0)
    lambda_cycle: float = Field(default=10.0, ge=0)
    lambda_identity: float = Field(default=0.5, ge=0)
    lambda_latent: float = Field(default=0.0, ge=0)
    one_discriminator: bool = False
    cycles: Literal["both", "forward", "backward"] = "both"
    form_a: Form = "rgb"
    form_b: Form = "rgb"
    pool: int = Field(default=50, ge=0)

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if CHANNELS[self.form_a] != CHANNELS[self.form_b] and (self.lambda_identity or self.one_discriminator):
            raise ValueError(
                f"form_a {self.form_a} and form_b {self.form_b} of unequal channels, with lambda_identity "
                f"{self.lambda_identity} and one_discriminator {self.one_discriminator}: set both off"
            )
        return self


class ModifiedCycleGan(CycleGan):
    """CycleGAN with better cycles (arXiv 2408.15374): feature-level cycle, decaying weight, quality weighting.

    alpha grows linearly from `alpha_start` to `alpha_end` < 1, lambda falls from `lambda_cycle` to `lambda_end` > 0.
    `feature_layer` indexes the discriminator's feature list. Published with pretrained `discriminators_from`.
    """

    name: Literal["modified-cyclegan"] = "modified-cyclegan"  # type: ignore[assignment]
    lambda_identity: float = Field(default=0.0, ge=0)
    lambda_cycle: float = Field(default=10.0, gt=0)
    lambda_end: float = Field(default=1.0, gt=0)
    alpha_start: float = Field(default=0.0, ge=0, lt=1)
    alpha_end: float = Field(default=0.9, ge=0, lt=1)
    quality: Literal["none", "fake", "real"] = "fake"
    feature_layer: int = -1

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
