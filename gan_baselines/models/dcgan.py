"""DCGAN: pictures from noise."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Dcgan
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import DcganDiscriminator, DcganGenerator, initialise


class DcganModel(GanModel):
    """min over D: -E log D(y) - E log(1 - D(G(z))); min over G: -E log D(G(z)) (arXiv 1406.2661, eq. 1; 1511.06434).

    `loss="lsgan"` puts squared distances in place of the logarithms (arXiv 1611.04076).
    """

    order = ("discriminator", "generator")
    judged = ("picture",)

    def __init__(self, config: Dcgan) -> None:
        super().__init__(config)
        self.generators["G"] = initialise(DcganGenerator(config.size, config.noise, config.width), config.init)
        self.discriminators["D"] = initialise(DcganDiscriminator(config.size, config.width), config.init)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Draw z from N(0, 1), one for each real picture."""
        real = batch["picture"]
        z = torch.randn(len(real), self.config.noise, device=real.device)
        return {"picture": self.generators["G"](z)}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The two logarithms, summed, not halved."""
        return discriminator_game(self.config, self.discriminators["D"], batch["picture"], fakes["picture"])

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """-E log D(G(z)): the non-saturating form."""
        return {"G_adversarial": adversarial(self.config, self.discriminators["D"](fakes["picture"]))}

    @property
    def sampler(self) -> nn.Module:
        """G."""
        return self.generators["G"]

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Four columns from fixed noise: the same z in every grid."""
        rows = len(batch["picture"])
        z = torch.randn(4 * rows, self.config.noise, generator=torch.Generator().manual_seed(0))
        return list(self.generators["G"](z.to(batch["picture"].device)).split(rows))
