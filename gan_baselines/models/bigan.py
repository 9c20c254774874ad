"""BiGAN/ALI between two collections: one discriminator on pairs, and no reconstruction."""

import torch
from torch import Tensor

from gan_baselines.config import BiGan
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import initialise, picture_generator
from gan_baselines.networks.discriminators import patch_discriminator


class BiGanModel(GanModel):
    """D tells pairs (a, G(a)) from pairs (E(b), b); both networks deceive it (arXiv 1605.09782, eq. 3; 1606.00704).

    G = generators["AB"], E = generators["BA"]. In those papers one side is noise; between pictures it is a baseline of
    the CycleGAN paper (arXiv 1703.10593, section 5.1.1), whose code calls the first kind of pair real.
    """

    judged = ("AG", "EB")

    def __init__(self, config: BiGan) -> None:
        super().__init__(config)
        self.pool_size = config.pool
        for name in ("AB", "BA"):
            self.generators[name] = initialise(picture_generator(config.generator, config.norm), config.init)
        net = patch_discriminator(config.discriminator, config.norm, conditional=True)
        self.discriminators["D"] = initialise(net, config.init)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """The pairs (a, G(a)) and (E(b), b), 6 channels each."""
        ahead = torch.cat([batch["A"], self.generators["AB"](batch["A"])], 1)
        back = torch.cat([self.generators["BA"](batch["B"]), batch["B"]], 1)
        return {"AG": ahead, "EB": back}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Half of the loss that calls (a, G(a)) real and (E(b), b) fake, both from their pools."""
        return discriminator_game(self.config, self.discriminators["D"], fakes["AG"], fakes["EB"], weight=0.5)

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """G wants its pairs judged fake, E its pairs judged real."""
        net = self.discriminators["D"]
        ahead = adversarial(self.config, net(fakes["AG"]), towards=0.0)
        return {"G_AB": ahead, "G_BA": adversarial(self.config, net(fakes["EB"]))}

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a, G(a), b, E(b)."""
        return [batch["A"], self.generators["AB"](batch["A"]), batch["B"], self.generators["BA"](batch["B"])]
