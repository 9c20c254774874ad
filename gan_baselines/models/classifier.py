"""A classifier, whose trunk serves other models as a frozen feature network."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Classifier
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.networks import FeatureNet, initialise


class ClassifierModel(GanModel):
    """min over f, h: -E log softmax(h(f(x)))_c; generators "f" (`FeatureNet`) and "head" (linear on its last map)."""

    order = ("generator",)

    def __init__(self, config: Classifier) -> None:
        super().__init__(config)
        trunk = FeatureNet(config.features)
        self.generators["f"] = initialise(trunk, config.init)
        self.generators["head"] = initialise(nn.Linear(trunk.widths[-1], max(1, len(config.classes))), config.init)

    def logits(self, picture: Tensor) -> Tensor:
        """(N, classes)."""
        return self.generators["head"](self.generators["f"].code(picture).mean((2, 3)))

    def generate(self, batch: Batch, progress: float) -> Batch:
        """The logits."""
        return {"logits": self.logits(batch["picture"])}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Cross entropy."""
        return {"cross_entropy": functional.cross_entropy(fakes["logits"].float(), batch["class"])}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """There is no discriminator."""
        return {}

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """The pictures."""
        return [batch["picture"]]
