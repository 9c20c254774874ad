"""Pix2PixHD: label maps to pictures, coarse to fine, with instances."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Norm, Pix2PixHd
from gan_baselines.models.base import Batch
from gan_baselines.models.labelled import LabelledModel
from gan_baselines.networks import CoarseGenerator, FineGenerator, InstanceEncoder, initialise
from gan_baselines.networks.labels import region_means, regions


class Pix2PixHdModel(LabelledModel):
    """`LabelledModel` with squares, and G in two sizes (arXiv 1711.11585, section 3.1).

    L_FM of a layer is times 4 / layers / scales, as in the published code. `encoder` joins E's features, averaged over
    each instance, to the input (section 3.4); to translate they are those of a given picture, or drawn from what
    training saw of the class. `fix_coarse`: share of the training in which only the fine part of G learns.
    """

    halved = True

    def __init__(self, config: Pix2PixHd) -> None:
        super().__init__(config, Norm(kind="instance"))
        self.features_share = 4 / (config.discriminator.n_layers + 1) / config.discriminator.scales
        channels = config.planes + (config.encoder_numbers if config.encoder else 0)
        net: nn.Module = CoarseGenerator(channels, config.width, config.downs, config.blocks)
        if config.fine:
            net = FineGenerator(channels, config.width, config.downs, config.blocks, config.fine_blocks)
        self.generators["G"] = initialise(net, config.init)
        if config.encoder:
            encoder = InstanceEncoder(config.encoder_width, config.downs, config.encoder_numbers, config.labels,
                                      config.encoder_slots)  # fmt: skip
            self.generators["E"] = initialise(encoder, config.init)

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """G(s, features of `style`, a picture of the map's size, or drawn ones)."""
        joined = [self.planes(x)]
        if self.config.encoder:
            joined.append(self._drawn(x) if style is None else region_means(self.generators["E"](style), regions(x)))
        return self.generators["G"](torch.cat(joined, 1))

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """The picture itself: its features are averaged over the map's instances."""
        return picture if self.config.encoder else super().style_of(direction, picture)

    def _drawn(self, x: Tensor) -> Tensor:
        numbers = regions(x)
        labels = [int(x[:, 0][numbers == number][0]) for number in range(int(numbers.max()) + 1)]
        drawn = torch.stack([self.generators["E"].draw(label) for label in labels])
        return drawn[numbers].movedim(3, 1)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(s), with the features of the true picture."""
        x, planes = batch["A"], self.planes(batch["A"])
        fixed = {"coarse_fixed": True} if self.config.fine and progress < self.config.fix_coarse else {}
        joined = [planes]
        if self.config.encoder:
            numbers = regions(x)
            joined.append(region_means(self.generators["E"](batch["B"]), numbers))
            self._keep(x, numbers, joined[1])
        return {"B": self.generators["G"](torch.cat(joined, 1), **fixed), "planes": planes}

    def _keep(self, x: Tensor, numbers: Tensor, means: Tensor) -> None:
        for number in range(int(numbers.max()) + 1):
            inside = numbers == number
            self.generators["E"].keep(int(x[:, 0][inside][0]), means.detach().movedim(1, 3)[inside][0])
