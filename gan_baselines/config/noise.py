"""Settings of the models that start from noise."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import Layout, LossMode, Model


class Dcgan(Model):
    """DCGAN (arXiv 1511.06434): noise to picture."""

    layout: ClassVar[Layout] = "single"

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

    @property
    def side(self) -> int:
        """`size`."""
        return self.size
