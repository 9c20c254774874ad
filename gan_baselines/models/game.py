"""The adversarial game, as all models play it."""

from typing import Any

from torch import Tensor, nn

from gan_baselines.losses import discriminator_terms, generator_term, gradient_penalty
from gan_baselines.models.base import Terms
from gan_baselines.networks import Judgement, judge_pair

PENALTY = 10.0  # lambda of arXiv 1704.00028


def discriminator_game(config: Any, network: nn.Module, real: Tensor, fake: Tensor, condition: Tensor | None = None,
                       *, weight: float = 1.0, name: str = "D") -> Terms:  # fmt: skip
    """Terms NAME_real and NAME_fake of the discriminator `network`, times `weight`; with wgangp its penalty too."""
    judged = judge_pair(network, real, fake, condition)
    on_real, on_fake = discriminator_terms(config.loss, *judged, scales_of(config))
    terms = {f"{name}_real": weight * on_real, f"{name}_fake": weight * on_fake}
    if config.loss == "wgangp":
        extra = () if condition is None else (condition,)
        terms[f"{name}_penalty"] = PENALTY * gradient_penalty(lambda x: network(x, *extra).logits, real, fake)
    return terms


def adversarial(config: Any, judgement: Judgement, towards: float = 1.0) -> Tensor:
    """The generator's term for what a discriminator says of its pictures."""
    return generator_term(config.loss, judgement.logits, scales_of(config), towards=towards)


def scales_of(config: Any) -> Any:
    """Whether the scales of the discriminator add up or are averaged."""
    return config.discriminator.scale_loss if hasattr(config, "discriminator") else "mean"
