"""Networks shared by all models: generators, discriminators, norms, initialisation."""

from gan_baselines.networks.discriminators import DcganDiscriminator, Judgement, PatchDiscriminator, judge_pair
from gan_baselines.networks.generators import DcganGenerator, ResnetGenerator, UnetGenerator, picture_generator
from gan_baselines.networks.init import count_parameters, initialise

__all__ = [
    "DcganDiscriminator",
    "DcganGenerator",
    "Judgement",
    "PatchDiscriminator",
    "ResnetGenerator",
    "UnetGenerator",
    "count_parameters",
    "initialise",
    "judge_pair",
    "picture_generator",
]
