"""The models: each declares networks and returns named loss terms; optimisers, devices and logs are the trainer's."""

from typing import Any

from gan_baselines.errors import InputError
from gan_baselines.models.adain import AdainModel
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.bicyclegan import BicycleGanModel
from gan_baselines.models.bigan import BiGanModel
from gan_baselines.models.classifier import ClassifierModel
from gan_baselines.models.cogan import CoGanModel
from gan_baselines.models.cvaegan import CvaeGanModel
from gan_baselines.models.cyclegan import CycleGanModel
from gan_baselines.models.dcgan import DcganModel
from gan_baselines.models.discogan import DiscoGanModel
from gan_baselines.models.dtn import DtnModel
from gan_baselines.models.gcgan import GcGanModel
from gan_baselines.models.infogan import InfoGanModel
from gan_baselines.models.johnson import JohnsonModel
from gan_baselines.models.modified_cyclegan import ModifiedCycleGanModel
from gan_baselines.models.munit import MunitModel
from gan_baselines.models.pix2pix import Pix2PixModel
from gan_baselines.models.pix2pixhd import Pix2PixHdModel
from gan_baselines.models.progan import ProGanModel
from gan_baselines.models.simgan import FeatureGanModel, SimGanModel
from gan_baselines.models.spade import SpadeModel
from gan_baselines.models.stackgan import StackGanModel
from gan_baselines.models.unit import UnitModel
from gan_baselines.networks import CodeReader
from gan_baselines.networks.diff_augment import augmented

__all__ = ["Batch", "GanModel", "Terms", "build"]

_CLASSES: dict[str, type[GanModel]] = {
    "dcgan": DcganModel,
    "pix2pix": Pix2PixModel,
    "cyclegan": CycleGanModel,
    "modified-cyclegan": ModifiedCycleGanModel,
    "discogan": DiscoGanModel,
    "dtn": DtnModel,
    "simgan": SimGanModel,
    "feature-gan": FeatureGanModel,
    "bigan": BiGanModel,
    "cogan": CoGanModel,
    "unit": UnitModel,
    "munit": MunitModel,
    "gcgan": GcGanModel,
    "classifier": ClassifierModel,
    "bicyclegan": BicycleGanModel,
    "cvaegan": CvaeGanModel,
    "infogan": InfoGanModel,
    "pix2pixhd": Pix2PixHdModel,
    "spade": SpadeModel,
    "stackgan": StackGanModel,
    "progan": ProGanModel,
    "adain": AdainModel,
    "johnson": JohnsonModel,
}


# their losses compare what a discriminator makes of two pictures place by place, or its input is more than a picture
_UNMOVED = ("modified-cyclegan", "discogan", "cogan", "cvaegan", "pix2pixhd", "spade")


def build(config: Any) -> GanModel:
    """Return the model that `config` describes, initialised from torch's global generator.

    Raises:
        InputError: settings that no network fits, such as groups that do not divide the channels.
    """
    model = _CLASSES[config.name](config)
    if config.diff_augment:
        if config.name in _UNMOVED:
            raise InputError("model.diff_augment", f"true for {config.name}", "false: its losses compare features")
        for network in model.discriminators.values():
            if not isinstance(network, CodeReader):
                network.register_forward_pre_hook(augmented)
    return model
