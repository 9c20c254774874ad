"""Feature networks: a small one that trains in minutes, and VGG for weights that the user has."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_baselines.config import Features
from gan_baselines.errors import InputError

# convolutions of each stage (arXiv 1409.1556, table 1, D and E), a pooling after each
_VGG = {
    "vgg16": ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    "vgg19": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}


class FeatureNet(nn.Module):
    """3x3 convolutions with ReLU, a 2x2 maximum or mean after each stage; gives all activations, the finest first.

    `small` has two convolutions a stage, of width, 2 width, then 4 width. The layers of vgg16 and vgg19 bear the names
    of torchvision's, and see colours by the mean and deviation of ImageNet.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Features) -> None:
        super().__init__()
        small = tuple((config.width * min(2**stage, 4), 2) for stage in range(config.stages))
        self.stages = _VGG.get(config.kind, small)
        widths = [3, *(width for width, count in self.stages for _ in range(count))]
        pairs = iter(pairwise(widths))
        layers: list[nn.Module] = []
        for _, count in self.stages:
            for _ in range(count):
                layers += [nn.Conv2d(*next(pairs), 3, padding=1), nn.ReLU()]
            layers.append(nn.AvgPool2d(2) if config.pool == "mean" else nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.widths = widths[1:]
        imagenet = config.kind != "small"
        mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if imagenet else ([0.5] * 3, [0.5] * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, picture: Tensor, count: int | None = None) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] to the output of every ReLU, or of the first `count`."""
        h, found = ((picture + 1) / 2 - self.mean) / self.std, list[Tensor]()
        for layer in self.features:
            if len(found) == count:
                break
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                found.append(h)
        return found

    def place(self, name: str, option: str = "model.layer") -> int:
        """The place of an activation, such as relu4_2, among those of `forward`.

        Raises:
            InputError: the network has no such layer.
        """
        names = [f"relu{s + 1}_{k + 1}" for s, (_, count) in enumerate(self.stages) for k in range(count)]
        if name not in names:
            raise InputError(option, f"'{name}'", ", ".join(names))
        return names.index(name)

    def code(self, picture: Tensor) -> Tensor:
        """The map behind the last maximum, (N, C, H / 2**stages, W / 2**stages)."""
        return self.features[-1](self(picture)[-1])

    @property
    def first_places(self) -> list[int]:
        """The places of relu1_1, relu2_1, ... among the activations."""
        counts = [count for _, count in self.stages]
        return [sum(counts[:stage]) for stage in range(len(counts))]

    def firsts(self, picture: Tensor) -> list[Tensor]:
        """The first activation of each stage: relu1_1, relu2_1, ..."""
        found = self(picture)
        return [found[place] for place in self.first_places]


class CodeDecoder(nn.Module):
    """A coarse map to a picture: `doublings` times a nearest resize, a 3x3 convolution, BN and ReLU; tanh."""

    def __init__(self, into: int, doublings: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in reversed(range(doublings)):
            out = width * min(2**level, 8)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
            layers.append(nn.ReLU(inplace=True))
            into = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(into, 3, 3, padding=1), nn.Tanh())

    def forward(self, code: Tensor) -> Tensor:
        """(N, C, h, w) to (N, 3, h 2**doublings, w 2**doublings) in [-1, 1]."""
        return self.layers(code)
