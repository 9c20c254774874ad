"""The models: each declares networks and returns named loss terms; optimisers, devices and logs are the trainer's."""

from gan_baselines.config import ModelConfig
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.cyclegan import CycleGanModel
from gan_baselines.models.dcgan import DcganModel
from gan_baselines.models.modified_cyclegan import ModifiedCycleGanModel
from gan_baselines.models.pix2pix import Pix2PixModel

__all__ = [
    "Batch",
    "CycleGanModel",
    "DcganModel",
    "GanModel",
    "ModifiedCycleGanModel",
    "Pix2PixModel",
    "Terms",
    "build",
]

_CLASSES: dict[str, type[GanModel]] = {
    "dcgan": DcganModel,
    "pix2pix": Pix2PixModel,
    "cyclegan": CycleGanModel,
    "modified-cyclegan": ModifiedCycleGanModel,
}


def build(config: ModelConfig) -> GanModel:
    """Return the model that `config` describes, initialised from torch's global generator.

    Raises:
        InputError: settings that no network fits, such as groups that do not divide the channels.
    """
    return _CLASSES[config.name](config)
