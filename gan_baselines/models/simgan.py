"""SimGAN and the feature-loss GAN: one direction, kept near its input by a distance to it."""

import torch
from torch import Tensor

from gan_baselines.config import FeatureGan, SimGan
from gan_baselines.losses import l1
from gan_baselines.models.base import Batch, GanModel, Player, Source, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import FeatureNet, initialise, picture_generator
from gan_baselines.networks.discriminators import patch_discriminator


class SimGanModel(GanModel):
    """min over R: L_adv(R(x)) + lambda |psi(R(x)) - psi(x)|, psi the identity (arXiv 1612.07828, eq. 2 and 3).

    With CycleGAN's networks, squares and pool, as the CycleGAN paper compares it (arXiv 1703.10593, section 5.1.1), but
    for that code's adversarial term, which may judge an older picture of the pool. `generator_turns`,
    `discriminator_turns` and the `warm_` steps are the paper's algorithm 1 (K_g, K_d).
    """

    judged = ("B",)

    def __init__(self, config: SimGan) -> None:
        super().__init__(config)
        self.pool_size = config.pool
        self.generators["AB"] = initialise(picture_generator(config.generator, config.norm), config.init)
        self.discriminators["B"] = initialise(patch_discriminator(config.discriminator, config.norm), config.init)

    def turns(self, step: int) -> tuple[Player, ...]:
        """R alone, D alone, then K_g steps of R for K_d of D; 0 turns: both in each step."""
        config = self.config
        if step < config.warm_generator:
            return ("generator",)
        step -= config.warm_generator
        if step < config.warm_discriminator:
            return ("discriminator",)
        if not config.generator_turns:
            return self.order
        place = (step - config.warm_discriminator) % (config.generator_turns + config.discriminator_turns)
        return ("generator",) if place < config.generator_turns else ("discriminator",)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """R(x)."""
        return {"B": self.generators["AB"](batch["A"])}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Half of the loss on real and on pooled refined pictures."""
        return discriminator_game(self.config, self.discriminators["B"], batch["B"], fakes["B"], weight=0.5)

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The two terms."""
        judgement = self.discriminators["B"](fakes["B"])
        kept = self.config.lambda_content * self.distance(fakes["B"], batch["A"])
        return {"G_adversarial": adversarial(self.config, judgement), "G_content": kept}

    def distance(self, fake: Tensor, source: Tensor) -> Tensor:
        """E |R(x) - x|."""
        return l1(fake, source).mean()

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns x, R(x), a target picture."""
        return [batch["A"], self.generators["AB"](batch["A"]), batch["B"]]


class FeatureGanModel(SimGanModel):
    """The same with psi = activations of a frozen network: "feature loss + GAN" of the CycleGAN paper (5.1.1).

    There VGG-16's relu4_2 of pictures enlarged to 224 px; here `feature_layer` of `features`, at the pictures' size.
    """

    def __init__(self, config: FeatureGan) -> None:
        super().__init__(config)
        self.helpers["f"] = FeatureNet(config.features).requires_grad_(False).eval()

    def sources(self) -> list[Source]:
        """And the feature network."""
        return [*super().sources(), Source("features_from", "helper", self.helpers)]

    def distance(self, fake: Tensor, source: Tensor) -> Tensor:
        """E |f(G(x)) - f(x)|."""
        layer = self.config.feature_layer
        return l1(self.helpers["f"](fake)[layer], self.helpers["f"](source)[layer]).mean()
