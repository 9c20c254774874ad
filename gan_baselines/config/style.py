"""Settings of style transfer: one picture's content, another's colours and strokes."""

from typing import Annotated, Literal

from pydantic import Field

from gan_baselines.config.base import Features, Generator, InitKind, Model, Norm

Layer = Annotated[str, Field(pattern=r"^relu\d_\d$")]
VGG16 = Features(kind="vgg16", stages=5)
VGG19 = Features(kind="vgg19", stages=5)


class Styled(Model):
    """What both have. A is the content, B the style.

    `features_from` is a weights folder, a safetensors file of VGG, a hub id, or random.
    """

    features: Features = VGG19
    features_from: str | None = None


class Adain(Styled):
    """AdaIN (arXiv 1703.06868). The content is met at `layer`; the decoder mirrors the features up to there."""

    name: Literal["adain"] = "adain"
    layer: Layer = "relu4_1"
    lambda_style: float = Field(default=10.0, ge=0)
    init: InitKind = "kaiming"

    @property
    def multiple(self) -> int:
        """The halvings before `layer`."""
        return 2 ** (int(self.layer[4]) - 1)


class Johnson(Styled):
    """Perceptual losses for a network a style (arXiv 1603.08155). Several style pictures: the mean of their Grams.

    `scale_features` divides each layer by its mean over the style, for networks whose layers differ more than VGG's do.
    The published weights are far too strong then.
    """

    name: Literal["johnson"] = "johnson"
    generator: Generator = Generator(width=32, blocks=5, ends=9)
    norm: Norm = Norm(kind="instance")
    features: Features = VGG16
    content_layer: Layer = "relu3_3"
    style_layers: tuple[Layer, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    scale_features: bool = False
    lambda_content: float = Field(default=1.0, ge=0)
    lambda_style: float = Field(default=5.0, ge=0)
    lambda_variation: float = Field(default=1e-6, ge=0)
