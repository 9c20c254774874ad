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
from gan_baselines.networks.coarse_to_fine import CoarseGenerator, FineGenerator, InstanceEncoder
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
from gan_baselines.networks.spade import Spade, SpadeGenerator
from gan_baselines.networks.styled import MirrorDecoder

__all__ = [
    "CoarseGenerator",
    "CodeDecoder",
    "CodeReader",
    "ContentEncoder",
    "CoupledDiscriminator",
    "CoupledGenerator",
    "DcganDiscriminator",
    "DcganGenerator",
    "FeatureNet",
    "FineGenerator",
    "Gaussian",
    "InstanceEncoder",
    "Judgement",
    "MirrorDecoder",
    "Norm",
    "PatchDiscriminator",
    "PictureDecoder",
    "PictureEncoder",
    "ResidualBlock",
    "ResnetGenerator",
    "Spade",
    "SpadeGenerator",
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
