"""Settings of the models that work in stages."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import Layout, LossMode, Model, PowerOfTwo


class StackGan(Model):
    """StackGAN (arXiv 1612.03242). Stage 1 learns pictures of `first_size`, stage 2 of `size` from stage 1's.

    `stage_from` is stage 1's weights folder. `words` empty: those of the captions; then `length` is their longest.
    Stage 2 works at `coarse` px inside.
    """

    layout: ClassVar[Layout] = "captioned"

    name: Literal["stackgan"] = "stackgan"
    stage: Literal[1, 2] = 1
    stage_from: str | None = None
    size: PowerOfTwo = Field(default=256, ge=8, le=1024)
    first_size: PowerOfTwo = Field(default=64, ge=8, le=512)
    coarse: PowerOfTwo = Field(default=16, ge=4)
    blocks: int = Field(default=2, ge=0)
    noise: int = Field(default=100, ge=1)
    condition: int = Field(default=128, ge=1)
    text: int = Field(default=128, ge=1)
    width: int = Field(default=96, ge=1)
    words: tuple[str, ...] = ()
    length: int = Field(default=0, ge=0)
    augment: bool = True
    lambda_kl: float = Field(default=2.0, ge=0)

    @model_validator(mode="after")
    def _sizes_grow(self) -> Self:
        if not self.coarse <= self.first_size <= self.size:
            raise ValueError(f"coarse {self.coarse}, first_size {self.first_size}, size {self.size} do not grow")
        return self

    @property
    def side(self) -> int:
        """Pictures are read at `size`, and stage 1 shrinks them."""
        return self.size


class ProGan(Model):
    """ProgressiveGAN (arXiv 1710.10196). `widths` of the levels from 4 px on; each doubles the side."""

    layout: ClassVar[Layout] = "single"

    name: Literal["progan"] = "progan"
    noise: int = Field(default=512, ge=1)
    widths: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    grow: bool = True
    loss: LossMode = "wgangp"
    drift: float = Field(default=1e-3, ge=0)

    @model_validator(mode="after")
    def _some_levels(self) -> Self:
        if not 2 <= len(self.widths) <= 9 or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths}: from 2 to 9 levels of at least 1 map")
        return self

    @property
    def side(self) -> int:
        """4 px, doubled by each level after the first."""
        return 4 * 2 ** (len(self.widths) - 1)
