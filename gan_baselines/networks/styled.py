"""Pictures out of features."""

from torch import Tensor, nn

from gan_baselines.networks.convolutions import Conv2d
from gan_baselines.networks.features import FeatureNet


class MirrorDecoder(nn.Module):
    """The layers of a feature network up to one of its activations, backwards: nearest resize where that pools.

    3x3 convolutions with mirrored edges and ReLU, no norm and no last activation (arXiv 1703.06868, section 6).
    """

    def __init__(self, features: FeatureNet, layer: str) -> None:
        super().__init__()
        parts = [part for part in features.features if not isinstance(part, nn.ReLU)]
        places = [place for place, part in enumerate(parts) if isinstance(part, nn.Conv2d)]
        layers: list[nn.Module] = []
        for part in reversed(parts[: places[features.place(layer)] + 1]):
            if isinstance(part, nn.Conv2d):
                conv = Conv2d(part.out_channels, part.in_channels, 3)
                layers += [nn.ReflectionPad2d(1), conv, nn.ReLU()]
            else:
                layers.append(nn.Upsample(scale_factor=2))
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to (N, 3, H, W), about [-1, 1]."""
        return self.layers(features)
