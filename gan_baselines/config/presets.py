"""The models by name, and the sizes they come in: as published, and small enough for a CPU."""

from typing import Any

from gan_baselines.config.base import Layout, Model
from gan_baselines.config.noise import Dcgan
from gan_baselines.config.paired import Pix2Pix
from gan_baselines.config.unpaired import CycleGan, ModifiedCycleGan

MODELS: dict[str, type[Model]] = {
    "dcgan": Dcgan,
    "pix2pix": Pix2Pix,
    "cyclegan": CycleGan,
    "modified-cyclegan": ModifiedCycleGan,
}

_SMALL_PICTURES = {"size": 64, "load_size": 64}
_SMALL_RESNET = {"generator": {"blocks": 6, "width": 24}, "discriminator": {"width": 32}}
_SMALL_UNET = {"generator": {"downs": 6, "width": 16}, "discriminator": {"width": 32}}

# "published": the papers' and their codes' settings where they differ from the field defaults; "small": 64 px, over it
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "published": {
        "dcgan": {"data": {"flip": False}, "train": {"batch_size": 64, "epochs": 25, "decay_epochs": 0}},
    },
    "small": {
        "dcgan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "pix2pix": {"model": _SMALL_UNET, "data": _SMALL_PICTURES},
        "cyclegan": {"model": _SMALL_RESNET, "data": _SMALL_PICTURES},
        "modified-cyclegan": {"model": _SMALL_RESNET, "data": _SMALL_PICTURES},
    },
}


def layout_of(model: str) -> Layout:
    """The folder layout that a model trains on."""
    return MODELS[model].layout
