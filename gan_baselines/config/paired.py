"""Settings of the models that learn from pairs."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import Discriminator, Form, Generator, Layout, LossMode, Model, Norm


class Pix2Pix(Model):
    """Pix2Pix (arXiv 1611.07004).

    `gan`, `lambda_l1`, `conditional`, `generator.skips` and `discriminator.n_layers` are the switches of its ablation
    tables; `norm=group` is the variant for small batches. `form_a`, `form_b` say what pictures are: rgb, grey (of 8 or
    16 bits) or rgba, with transparency.
    """

    layout: ClassVar[Layout] = "paired"

    name: Literal["pix2pix"] = "pix2pix"
    generator: Generator = Generator(kind="unet", dropout=True)
    discriminator: Discriminator = Discriminator()
    norm: Norm = Norm(kind="batch")
    loss: LossMode = "vanilla"
    gan: bool = True
    conditional: bool = True
    lambda_l1: float = Field(default=100.0, ge=0)
    form_a: Form = "rgb"
    form_b: Form = "rgb"

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.gan and self.lambda_l1 == 0:
            raise ValueError("gan=false with lambda_l1=0 leaves no loss")
        return self
