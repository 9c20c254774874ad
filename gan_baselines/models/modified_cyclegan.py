"""CycleGAN with better cycles (arXiv 2408.15374)."""

import torch
from torch import Tensor

from gan_baselines.losses import l1, l2, realness
from gan_baselines.models.cyclegan import CycleGanModel
from gan_baselines.networks import Judgement
from gan_baselines.schedules import linear


class ModifiedCycleGanModel(CycleGanModel):
    """The cycle term, for each side X with the discriminator D_X and its features f:

    lambda_t E[q (alpha_t |f(cycle) - f(x)| + (1 - alpha_t) |cycle - x|)],

    alpha_t growing linearly to below 1, lambda_t falling linearly to above 0, and q the quality of the translation in
    [0, 1] without gradient: the score of the fake ("fake"), of the real picture as printed ("real"), or 1 ("none").
    """

    def cycle_term(self, side: str, real: Tensor, cycle: Tensor, fake_judgement: Judgement, progress: float) -> Tensor:
        """The term above for the side `side`."""
        config = self.config
        alpha = linear(config.alpha_start, config.alpha_end, progress)
        weight = linear(config.lambda_cycle, config.lambda_end, progress)
        distance = l1 if config.cycle_norm == "l1" else l2
        with torch.no_grad():
            wanted = self.discriminators[side](real)
        features = self.discriminators[side](cycle).features[config.feature_layer]
        bracket = alpha * l1(features, wanted.features[config.feature_layer]) + (1 - alpha) * distance(cycle, real)
        if config.quality != "none":
            judged = fake_judgement if config.quality == "fake" else wanted
            bracket = realness(config.loss, judged.logits) * bracket
        return weight * bracket.mean()
