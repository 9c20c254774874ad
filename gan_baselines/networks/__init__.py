"""Networks shared by all models: generators, discriminators, norms, initialisation."""

from gan_baselines.config import Norm
from gan_baselines.networks.autoencoders import (
    ContentEncoder,
    PictureDecoder,
    StyledAutoencoder,
    StyleEncoder,
    adain,
    noisy,
)
from gan_baselines.networks.coupled import CoupledDiscriminator, CoupledGenerator
from gan_baselines.networks.discriminators import (
    CodeReader,
    DcganDiscriminator,
    Judgement,
    PatchDiscriminator,
    judge_features,
    judge_pair,
)
from gan_baselines.networks.encoders import Gaussian, PictureEncoder
from gan_baselines.networks.features import CodeDecoder, FeatureNet
from gan_baselines.networks.generators import (
    DcganGenerator,
    ResidualBlock,
    ResnetGenerator,
    UnetGenerator,
    picture_generator,
)
from gan_baselines.networks.init import count_parameters, initialise

__all__ = [
    "CodeDecoder",
    "CodeReader",
    "ContentEncoder",
    "CoupledDiscriminator",
    "CoupledGenerator",
    "DcganDiscriminator",
    "DcganGenerator",
    "FeatureNet",
    "Gaussian",
    "Judgement",
    "Norm",
    "PatchDiscriminator",
    "PictureDecoder",
    "PictureEncoder",
    "ResidualBlock",
    "ResnetGenerator",
    "StyleEncoder",
    "StyledAutoencoder",
    "UnetGenerator",
    "adain",
    "count_parameters",
    "initialise",
    "judge_features",
    "judge_pair",
    "noisy",
    "picture_generator",
]
