"""Settings of pictures and training, and of a whole run."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gan_baselines.config.base import Closed
from gan_baselines.config.registry import MODELS

if TYPE_CHECKING:
    ModelConfig = Any
else:  # the class by the setting `name`, of those in the registry
    ModelConfig = Annotated[reduce(or_, MODELS.values()), Field(discriminator="name")]


class Data(Closed):
    """How pictures become batches. `load_size` resizes (px, square) before a random crop to `size`; None keeps sizes.

    `rotate` (degrees) and `stretch` (relative, 0.1 = up to 10 %) bound random distortions, for DCGAN on small sets.
    `colour` bounds random factors of brightness, contrast and saturation (0.2 = 0.8 to 1.2), equal for both of a pair.
    A side's pictures are kept in memory as uint8 where they need at most `memory_mb`. With `style`, a picture or a
    folder of them, the data folder is one collection of contents, and `style` the other side.
    """

    size: int | None = Field(default=None, ge=4)
    load_size: int | None = Field(default=None, ge=4)
    flip: bool = True
    rotate: float = Field(default=0.0, ge=0, le=180)
    stretch: float = Field(default=0.0, ge=0, lt=1)
    colour: float = Field(default=0.0, ge=0, lt=1)
    memory_mb: int = Field(default=2000, ge=0)
    style: str | None = None

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.size and self.load_size and self.load_size < self.size:
            raise ValueError(f"load_size {self.load_size} is below size {self.size}")
        return self


class Train(Closed):
    """Optimisation and bookkeeping. `steps` overrides `epochs`; the last decay_epochs/epochs of the run decay linearly.

    `halve_every` steps the learning rates are halved (0 never), beside that decay. `weight_decay` is Adam's L2 term.
    `ema` 0 switches the average off. `threads` None takes every core this process may use. Intervals are in steps.
    `evaluate_every` steps the test split is measured (0 never), and the weights of the lowest KID are kept in best/.
    """

    epochs: int = Field(default=200, ge=1)
    decay_epochs: int = Field(default=100, ge=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=1, ge=1)
    lr: float = Field(default=2e-4, gt=0)
    lr_discriminator: float | None = Field(default=None, gt=0)
    halve_every: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
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
    evaluate_every: int = Field(default=0, ge=0)
    evaluate_pictures: int = Field(default=64, ge=2)
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
