"""Pix2Pix: pictures from pictures, learned from pairs."""

import torch
from torch import Tensor

from gan_baselines.config import CHANNELS, Pix2Pix
from gan_baselines.losses import l1
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import initialise, picture_generator
from gan_baselines.networks.discriminators import patch_discriminator


class Pix2PixModel(GanModel):
    """arg min over G, max over D: L_cGAN(G, D) + lambda L_L1(G) (arXiv 1611.07004, eq. 4).

    L_cGAN = E log D(x, y) + E log(1 - D(x, G(x, z))), L_L1 = E |y - G(x, z)|; z is dropout. `conditional=False` hides x
    from D, `gan=False` leaves L1 alone, `lambda_l1=0` the GAN alone (its table 1). Batch keys: A = x, B = y.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: Pix2Pix) -> None:
        super().__init__(config)
        into, out = (CHANNELS[form] for form in (config.form_a, config.form_b))
        self.generators["AB"] = initialise(picture_generator(config.generator, config.norm, (into, out)), config.init)
        if config.gan:
            self.judged = ("B",)  # type: ignore[misc]
            net = patch_discriminator(config.discriminator, config.norm, config.conditional, out, into)
            self.discriminators["B"] = initialise(net, config.init)

    def _condition(self, batch: Batch) -> Tensor | None:
        return batch["A"] if self.config.conditional else None

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(x, z)."""
        return {"B": self.generators["AB"](batch["A"])}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Half of -E log D(x, y) - E log(1 - D(x, G(x, z))): halved to slow D (section 3.3)."""
        net = self.discriminators["B"]
        return discriminator_game(self.config, net, batch["B"], fakes["B"], self._condition(batch), weight=0.5)

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """-E log D(x, G(x, z)) + lambda E |y - G(x, z)|."""
        terms: Terms = {}
        if self.config.gan:
            judgement = self.discriminators["B"](fakes["B"], self._condition(batch))
            terms["G_adversarial"] = adversarial(self.config, judgement)
        if self.config.lambda_l1:
            terms["G_l1"] = self.config.lambda_l1 * l1(fakes["B"], batch["B"]).mean()
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns x, G(x, z), y."""
        return [batch["A"], self.generators["AB"](batch["A"]), batch["B"]]
