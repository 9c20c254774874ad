"""The models by name."""

from gan_baselines.config.base import Layout, Model
from gan_baselines.config.labelled import Pix2PixHd, SpadeGan
from gan_baselines.config.multimodal import BicycleGan, CvaeGan, InfoGan
from gan_baselines.config.noise import Dcgan
from gan_baselines.config.paired import Pix2Pix
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

MODELS: dict[str, type[Model]] = {
    "dcgan": Dcgan,
    "pix2pix": Pix2Pix,
    "cyclegan": CycleGan,
    "modified-cyclegan": ModifiedCycleGan,
    "discogan": DiscoGan,
    "dtn": Dtn,
    "simgan": SimGan,
    "feature-gan": FeatureGan,
    "bigan": BiGan,
    "cogan": CoGan,
    "unit": Unit,
    "munit": Munit,
    "gcgan": GcGan,
    "classifier": Classifier,
    "bicyclegan": BicycleGan,
    "cvaegan": CvaeGan,
    "infogan": InfoGan,
    "pix2pixhd": Pix2PixHd,
    "spade": SpadeGan,
    "stackgan": StackGan,
    "progan": ProGan,
    "adain": Adain,
    "johnson": Johnson,
}


def layout_of(model: str) -> Layout:
    """The folder layout that a model trains on; "unpaired" for a name that is none."""
    return MODELS[model].layout if model in MODELS else "unpaired"
