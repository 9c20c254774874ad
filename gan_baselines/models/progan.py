"""ProgressiveGAN: both networks begin at 4x4 and grow."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import ProGan
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks.progressive import GrowingDiscriminator, GrowingGenerator, double, halve, place


class ProGanModel(GanModel):
    """Wasserstein loss with gradient penalty and drift (arXiv 1704.00028, eq. 3; 1710.10196, appendix A.1):

    L_D = E D(G(z)) - E D(x) + 10 E (|grad D| - 1)^2 + drift E D(x)^2,   L_G = -E D(G(z)).

    Levels of equal length: each is faded in, then trained, by the share of the training that is over; real pictures are
    shrunk and faded alike. `grow` false trains the last level from the start. Adam's moments are kept when a level
    enters, where the published code begins them anew.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: ProGan) -> None:
        super().__init__(config)
        self.generators["G"] = GrowingGenerator(config.noise, config.widths)
        self.discriminators["D"] = GrowingDiscriminator(config.widths)

    @property
    def sampler(self) -> nn.Module:
        """G as far as it has grown."""
        return self.generators["G"]

    def _progress(self, progress: float) -> float:
        return progress if self.config.grow else 1.0

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Pictures of the present level."""
        net, real = self.generators["G"], batch["picture"]
        net.reached.fill_(self._progress(progress))
        z = torch.randn(len(real), self.config.noise, device=real.device)
        return {"picture": net(z, self._progress(progress))}

    def real(self, picture: Tensor, progress: float) -> Tensor:
        """Real pictures at the present level: (N, 3, size, size) to (N, 3, S, S)."""
        level, share = place(self._progress(progress), len(self.config.widths))
        small = functional.avg_pool2d(picture, 2 ** (len(self.config.widths) - 1 - level))
        return torch.lerp(double(halve(small)), small, share) if share < 1 else small

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_D."""
        net, real = self.discriminators["D"], self.real(batch["picture"], progress)
        where = self._place(real, progress)
        terms = discriminator_game(self.config, net, real, fakes["picture"].float(), where)
        drift = torch.stack([logits.float().square().mean() for logits in net(real, where).logits]).mean()
        return terms | {"D_drift": self.config.drift * drift}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_G."""
        net, picture = self.discriminators["D"], fakes["picture"]
        return {"G_adversarial": adversarial(self.config, net(picture, self._place(picture, progress)))}

    def _place(self, pictures: Tensor, progress: float) -> Tensor:
        # in double precision: rounded to single, a place just before a level would be the level's
        where = torch.full((len(pictures),), self._progress(progress), dtype=torch.float64)
        return where.to(pictures.device)

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Four columns from fixed noise, enlarged."""
        rows = len(batch["picture"])
        z = torch.randn(4 * rows, self.config.noise, generator=torch.Generator().manual_seed(0))
        return list(self.generators["G"](z.to(batch["picture"].device)).split(rows))
