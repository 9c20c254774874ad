"""Settings of a run: closed, frozen, checked once. Nothing here imports torch."""

from gan_baselines.config.base import (
    LEAST_SIDE,
    Closed,
    Discriminator,
    Generator,
    InitKind,
    Layout,
    LossMode,
    Model,
    Norm,
    NormKind,
    ScaleLoss,
)
from gan_baselines.config.noise import Dcgan
from gan_baselines.config.paired import Pix2Pix
from gan_baselines.config.presets import MODELS, PRESETS, layout_of
from gan_baselines.config.run import Data, ModelConfig, RunConfig, Train
from gan_baselines.config.unpaired import CycleGan, ModifiedCycleGan

__all__ = [
    "LEAST_SIDE",
    "MODELS",
    "PRESETS",
    "Closed",
    "CycleGan",
    "Data",
    "Dcgan",
    "Discriminator",
    "Generator",
    "InitKind",
    "Layout",
    "LossMode",
    "Model",
    "ModelConfig",
    "ModifiedCycleGan",
    "Norm",
    "NormKind",
    "Pix2Pix",
    "RunConfig",
    "ScaleLoss",
    "Train",
    "layout_of",
]
