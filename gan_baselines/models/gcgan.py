"""GcGAN: one direction, kept in place by a geometric transformation that translation must commute with."""

import torch
from torch import Tensor

from gan_baselines.config import GcGan
from gan_baselines.losses import l1
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import initialise, picture_generator
from gan_baselines.networks.discriminators import patch_discriminator


class GcGanModel(GanModel):
    """L_GAN(G, D_B) + L_GAN(G on f(a), D_R) + lambda_gc L_geo (arXiv 1809.05852, eq. 3 to 5).

    L_geo = E |G(a) - f^-1(G(f(a)))| + E |G(f(a)) - f(G(a))|, the second picture of each difference without gradient, as
    in the published code. f is a quarter turn or an upside-down flip; D_R judges transformed pictures. The identity
    loss |G(b) - b| has the weight lambda_identity * 10.
    """

    judged = ("B", "R")

    def __init__(self, config: GcGan) -> None:
        super().__init__(config)
        self.pool_size = config.pool
        self.generators["AB"] = initialise(picture_generator(config.generator, config.norm), config.init)
        for side in self.judged:
            net = patch_discriminator(config.discriminator, config.norm)
            self.discriminators[side] = initialise(net, config.init)

    def transform(self, x: Tensor) -> Tensor:
        """f."""
        return x.rot90(1, (2, 3)) if self.config.transform == "rot90" else x.flip(2)

    def inverse(self, x: Tensor) -> Tensor:
        """f^-1."""
        return x.rot90(-1, (2, 3)) if self.config.transform == "rot90" else x.flip(2)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(a) as B, G(f(a)) as R, and G(b) as "same" where the identity loss asks for it."""
        net = self.generators["AB"]
        fakes = {"B": net(batch["A"]), "R": net(self.transform(batch["A"]))}
        return fakes | ({"same": net(batch["B"])} if self.config.lambda_identity else {})

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Half of the losses on pictures of B, plain and transformed."""
        real = {"B": batch["B"], "R": self.transform(batch["B"])}
        terms: Terms = {}
        for side in self.judged:
            net = self.discriminators[side]
            terms |= discriminator_game(self.config, net, real[side], fakes[side], weight=0.5, name=f"D_{side}")
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Adversarial, geometric and identity terms."""
        config, plain, turned = self.config, fakes["B"], fakes["R"]
        terms = {f"G_{side}": adversarial(config, self.discriminators[side](fakes[side])) for side in self.judged}
        geometry = l1(plain, self.inverse(turned.detach())) + l1(turned, self.transform(plain.detach()))
        terms["geometry"] = config.lambda_geometry * geometry.mean()
        if config.lambda_identity:
            terms["identity_B"] = 10 * config.lambda_identity * l1(fakes["same"], batch["B"]).mean()
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a, G(a), f^-1(G(f(a))), a target picture."""
        net, a = self.generators["AB"], batch["A"]
        return [a, net(a), self.inverse(net(self.transform(a))), batch["B"]]
