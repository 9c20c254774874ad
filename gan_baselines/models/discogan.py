"""DiscoGAN: relations between two collections, found by reconstruction in both directions."""

import torch
from torch import Tensor

from gan_baselines.config import DiscoGan
from gan_baselines.losses import l2, mean_feature_matching
from gan_baselines.models.base import Batch, GanModel, Player, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import DcganDiscriminator, UnetGenerator, initialise, judge_features

SIDES = (("A", "B"), ("B", "A"))
D_EVERY = 3  # a step in three is the discriminators', the others are the generators'


class DiscoGanModel(GanModel):
    """For each direction, (1 - r) (0.1 L_GAN + 0.9 L_FM) + r d(G_BA(G_AB(a)), a) (arXiv 1703.05192, eq. 4 to 8).

    L_FM, the weights and the step of r from `reconstruction_start` to `reconstruction` after `curriculum` of the
    training are the published code's, not the paper's; so are the turns. d is the mean square on [0, 1]. `variant`
    "gan" has one direction without reconstruction, "recongan" one direction with it (its figure 2).
    """

    def __init__(self, config: DiscoGan) -> None:
        super().__init__(config)
        both = config.variant == "discogan"
        self.directions = SIDES if both else SIDES[:1]
        self.judged = tuple(target for _, target in self.directions)  # type: ignore[misc]
        for source, target in SIDES if config.variant != "gan" else SIDES[:1]:
            net = UnetGenerator(4, config.width, config.norm, skips=False)
            self.generators[source + target] = initialise(net, config.init)
        for side in self.judged:
            self.discriminators[side] = initialise(DcganDiscriminator(config.size, config.width), config.init)

    def turns(self, step: int) -> tuple[Player, ...]:
        """D every third step, G otherwise; never both."""
        return ("discriminator",) if step % D_EVERY == 0 else ("generator",)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G_AB(a), G_BA(b)."""
        return {target: self.generators[source + target](batch[source]) for source, target in self.directions}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Half of the loss on real and on translated pictures of each side."""
        terms: Terms = {}
        for side in self.judged:
            net = self.discriminators[side]
            terms |= discriminator_game(self.config, net, batch[side], fakes[side], weight=0.5, name=f"D_{side}")
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Adversarial, feature and reconstruction terms of each direction."""
        config, terms = self.config, Terms()
        later = progress >= config.curriculum
        r = config.reconstruction if later else config.reconstruction_start
        r = 0.0 if config.variant == "gan" else r
        for source, target in self.directions:
            net, fake = self.discriminators[target], fakes[target]
            terms[f"G_{source}{target}"] = (1 - r) * (1 - config.feature_share) * adversarial(config, net(fake))
            matched = mean_feature_matching(*judge_features(net, batch[target], fake, first=1))
            terms[f"features_{target}"] = (1 - r) * config.feature_share * matched
            if r:
                cycle = self.generators[target + source](fake)
                terms[f"cycle_{source}"] = r * l2(cycle, batch[source]).mean() / 4  # [-1, 1] to [0, 1]
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a, G_AB(a), and back where there is a way back; the same from b."""
        columns = []
        for source, target in self.directions:
            fake = self.generators[source + target](batch[source])
            columns += [batch[source], fake]
            if target + source in self.generators:
                columns.append(self.generators[target + source](fake))
        return columns
