"""Settings of a run: closed, frozen, checked once. Nothing here imports torch."""

from gan_baselines.config.base import (
    CHANNELS,
    LEAST_SIDE,
    Closed,
    Discriminator,
    Features,
    Form,
    Generator,
    InitKind,
    Layout,
    LossMode,
    Model,
    Norm,
    NormKind,
    ScaleLoss,
)
from gan_baselines.config.labelled import Pix2PixHd, SpadeGan
from gan_baselines.config.multimodal import BicycleGan, CvaeGan, InfoGan
from gan_baselines.config.noise import Dcgan
from gan_baselines.config.paired import Pix2Pix
from gan_baselines.config.presets import PRESETS
from gan_baselines.config.registry import MODELS, layout_of
from gan_baselines.config.run import Data, ModelConfig, RunConfig, Train
from gan_baselines.config.staged import ProGan, StackGan
from gan_baselines.config.style import Adain, Johnson
from gan_baselines.config.transfer import (
    BiGan,
    Classifier,
    CoGan,
    DiscoGan,
    Dtn,
    FeatureGan,
    GcGan,
    Munit,
    SimGan,
    Unit,
)
from gan_baselines.config.unpaired import CycleGan, ModifiedCycleGan

__all__ = [
    "CHANNELS",
    "LEAST_SIDE",
    "MODELS",
    "PRESETS",
    "Adain",
    "BiGan",
    "BicycleGan",
    "Classifier",
    "Closed",
    "CoGan",
    "CvaeGan",
    "CycleGan",
    "Data",
    "Dcgan",
    "DiscoGan",
    "Discriminator",
    "Dtn",
    "FeatureGan",
    "Features",
    "Form",
    "GcGan",
    "Generator",
    "InfoGan",
    "InitKind",
    "Johnson",
    "Layout",
    "LossMode",
    "Model",
    "ModelConfig",
    "ModifiedCycleGan",
    "Munit",
    "Norm",
    "NormKind",
    "Pix2Pix",
    "Pix2PixHd",
    "ProGan",
    "RunConfig",
    "ScaleLoss",
    "SimGan",
    "SpadeGan",
    "StackGan",
    "Train",
    "Unit",
    "layout_of",
]
