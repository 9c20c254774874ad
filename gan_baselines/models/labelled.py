"""What the models from label maps share: planes, the discriminator of pairs, feature matching, VGG's distance."""

from typing import Any

import torch
from torch import Tensor, nn

from gan_baselines.config import Norm
from gan_baselines.losses import feature_matching, l1
from gan_baselines.models.base import Batch, Direction, GanModel, Source, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import FeatureNet, PatchDiscriminator, initialise
from gan_baselines.networks.labels import label_planes, paint

VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu1_1 to relu5_1, in the published codes


class LabelledModel(GanModel):
    """sum over k of L_GAN(G, D_k) + lambda L_FM(G, D_k), each D_k on a halved pair of map and picture (arXiv
    1711.11585, eq. 3 to 6), and lambda_vgg times the L1 in the first activations of a frozen network's stages.

    Attributes:
        halved: D's loss is halved.
        features_share: what L_FM of one layer at one scale is multiplied with.
    """

    halved = False
    features_share = 1.0

    def __init__(self, config: Any, norm: Norm) -> None:
        super().__init__(config)
        d = config.discriminator
        judge = PatchDiscriminator(d.n_layers, d.scales, width=d.width, norm=norm, channels=config.planes + 3)
        self.discriminators["D"] = initialise(judge, config.init)
        if config.lambda_vgg:
            self.helpers["f"] = FeatureNet(config.features).requires_grad_(False).eval()

    def sources(self) -> list[Source]:
        """And the feature network."""
        own = [Source("features_from", "helper", self.helpers)] if self.config.lambda_vgg else []
        return [*super().sources(), *own]

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Label maps to pictures."""
        return {"AB": Direction(self, "AB")}

    def parts(self, direction: str) -> tuple[str, ...]:
        """All generators."""
        return tuple(self.generators)

    def planes(self, x: Tensor) -> Tensor:
        """One plane a class, and the edges of the instances where there are any."""
        return label_planes(x, self.config.labels, self.config.instances)

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The loss on (s, real) and (s, fake), over all scales."""
        pairs = (torch.cat([fakes["planes"], batch["B"]], 1), torch.cat([fakes["planes"], fakes["B"]], 1))
        return discriminator_game(self.config, self.discriminators["D"], *pairs, weight=0.5 if self.halved else 1.0)

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Adversarial, feature-matching and VGG terms."""
        config, net = self.config, self.discriminators["D"]
        made = net(torch.cat([fakes["planes"], fakes["B"]], 1))
        terms: Terms = {"G_adversarial": adversarial(config, made)}
        if config.lambda_features:
            with torch.no_grad():
                real = net(torch.cat([fakes["planes"], batch["B"]], 1))
            matched = feature_matching(real.features, made.features)
            terms["features"] = config.lambda_features * self.features_share * matched
        if config.lambda_vgg:
            wanted, found = (self.helpers["f"].firsts(picture) for picture in (batch["B"], fakes["B"]))
            weighed = zip(VGG_WEIGHTS[-len(found) :], found, wanted, strict=True)
            layers = [weight * l1(a, b).mean() for weight, a, b in weighed]
            terms["vgg"] = config.lambda_vgg * torch.stack(layers).sum()
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns labels, G(s) twice, the true picture."""
        return [paint(batch["A"]), *(self.translate("AB", batch["A"]) for _ in range(2)), batch["B"]]
