"""CycleGAN: pictures of two collections into each other, learned without pairs."""

import torch
from torch import Tensor, nn

from gan_baselines.config import CHANNELS, CycleGan
from gan_baselines.losses import l1, l2
from gan_baselines.models.base import Batch, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import Judgement, initialise, picture_generator
from gan_baselines.networks.discriminators import patch_discriminator
from gan_baselines.networks.norms import mixes_samples

SIDES = (("A", "B"), ("B", "A"))


class CycleGanModel(GanModel):
    """L_GAN(G, D_B) + L_GAN(F, D_A) + lambda (E |F(G(a)) - a| + E |G(F(b)) - b|) (arXiv 1703.10593, eq. 3).

    G = generators["AB"], F = generators["BA"]. The identity loss |G(b) - b| + |F(a) - a| (section 5.2) has the weight
    lambda_cycle * lambda_identity.
    """

    judged = ("A", "B")

    def __init__(self, config: CycleGan) -> None:
        super().__init__(config)
        self.pool_size = config.pool
        channels = {side: CHANNELS[config.form(side)] for side in "AB"}
        for source, target in SIDES:
            net = picture_generator(config.generator, config.norm, (channels[source], channels[target]))
            self.generators[source + target] = initialise(net, config.init)
        for side in "AB":
            if side == "A" or not config.one_discriminator:
                judge = patch_discriminator(config.discriminator, config.norm, channels=channels[side])
                net = initialise(judge, config.init)
            self.discriminators[side] = net

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(a) and F(b); with the identity loss also G(b) and F(a), as "same_B" and "same_A"."""
        fakes: Batch = {}
        for source, target in SIDES:
            net = self.generators[source + target]
            if not self._identity_weight():
                fakes[target] = net(batch[source])
            else:
                fakes[target], fakes["same_" + target] = _both(net, batch[source], batch[target])
        return fakes

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """For each side, half the loss on real pictures and pooled fakes (section 4)."""
        terms: Terms = {}
        for side in "AB":
            net = self.discriminators[side]
            terms |= discriminator_game(self.config, net, batch[side], fakes[side], weight=0.5, name=f"D_{side}")
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Adversarial, cycle, latent and identity terms of both directions."""
        terms: Terms = {}
        for source, target in SIDES:
            judgement = self.discriminators[target](fakes[target])
            if self.config.lambda_gan:
                terms[f"G_{source}{target}"] = self.config.lambda_gan * adversarial(self.config, judgement)
            if self.config.cycles in ("both", "forward" if source == "A" else "backward"):
                cycle = self.generators[target + source](fakes[target])
                terms[f"cycle_{source}"] = self.cycle_term(source, batch[source], cycle, judgement, progress)
            if self.config.lambda_latent:
                there, back = self.generators[source + target], self.generators[target + source]
                moved = l1(back.code(fakes[target]), there.code(batch[source]))
                terms[f"latent_{source}"] = self.config.lambda_latent * moved.mean()
            if weight := self._identity_weight():
                terms[f"identity_{target}"] = weight * l1(fakes["same_" + target], batch[target]).mean()
        return terms

    def cycle_term(self, side: str, real: Tensor, cycle: Tensor, fake_judgement: Judgement, progress: float) -> Tensor:
        """lambda E |cycle - real|. `fake_judgement` is what the other side's discriminator says of the fake between."""
        distance = l1 if self.config.cycle_norm == "l1" else l2
        return self.config.lambda_cycle * distance(cycle, real).mean()

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a, G(a), F(G(a)), b, F(b), G(F(b))."""
        columns = []
        for source, target in SIDES:
            fake = self.generators[source + target](batch[source])
            columns += [batch[source], fake, self.generators[target + source](fake)]
        return columns

    def _identity_weight(self) -> float:
        return self.config.lambda_identity * self.config.lambda_cycle


def _both(net: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    # one call on both, unless batch statistics would mix the two collections
    if mixes_samples(net) or first.shape != second.shape:
        return net(first), net(second)
    one, two = net(torch.cat([first, second])).chunk(2)
    return one, two
