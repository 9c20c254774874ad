"""UNIT: two variational autoencoders that share their innermost layers, and so one space of codes."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Unit
from gan_baselines.losses import l1
from gan_baselines.models.base import DIRECTIONS, Batch, Direction, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import ContentEncoder, Norm, PictureDecoder, ResidualBlock, initialise, noisy
from gan_baselines.networks.discriminators import patch_discriminator

SIDES = (("A", "B"), ("B", "A"))
INSTANCE, PLAIN = Norm(kind="instance"), Norm(kind="none")


class UnitModel(GanModel):
    """L_VAE + L_GAN + L_CC for both domains (arXiv 1703.00848, eq. 2 to 5), with q(z | x) = N(E(x), I):

    L_VAE = lambda_kl E(x)^2 + lambda_l1 |G(z) - x|,   L_CC the same for the code and picture of the translation.

    The shared-latent assumption (section 2): the last block of E and the first of G are one for both domains; `tied`
    false gives each domain its own, as the code released in 2018 does. KL is the mean square of the code's mean.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: Unit) -> None:
        super().__init__(config)
        nets: dict[str, nn.Module] = {}
        for side in "AB":
            nets[f"E_{side}"] = ContentEncoder(config.width, config.blocks)
            blocks = [ResidualBlock(4 * config.width, INSTANCE, "reflect", False) for _ in range(config.blocks)]
            nets[f"G_{side}"] = nn.Sequential(*blocks, PictureDecoder(config.width))
            self.discriminators[side] = initialise(patch_discriminator(config.discriminator, PLAIN), "normal")
        for inner in ("E", "G"):
            for side in ("shared",) if config.tied else "AB":
                nets[f"{inner}_inner_{side}"] = ResidualBlock(4 * config.width, INSTANCE, "reflect", False)
        for name, net in nets.items():
            self.generators[name] = initialise(net, config.init)

    def _inner(self, kind: str, side: str) -> str:
        return f"{kind}_inner_{'shared' if self.config.tied else side}"

    def encode(self, x: Tensor, side: str) -> Tensor:
        """The mean of q(z | x)."""
        return self.generators[self._inner("E", side)](self.generators[f"E_{side}"](x))

    def decode(self, z: Tensor, side: str) -> Tensor:
        """G(z) of a domain."""
        return self.generators[f"G_{side}"](self.generators[self._inner("G", side)](z))

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Both directions."""
        return {name: Direction(self, name) for name in DIRECTIONS}

    def parts(self, direction: str) -> tuple[str, ...]:
        """The encoder of one side and the decoder of the other."""
        source, target = direction[0], direction[1]
        return f"E_{source}", self._inner("E", source), self._inner("G", target), f"G_{target}"

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """G_target(E_source(x)), at the mean of the code."""
        return self.decode(self.encode(x, direction[0]), direction[1])

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Codes "code_A", reconstructions "same_A" and translations "A" (from B), and the same of B."""
        made: Batch = {}
        for source, target in SIDES:
            code = self.encode(batch[source], source)
            z = noisy(code)
            made |= {f"code_{source}": code, f"same_{source}": self.decode(z, source), target: self.decode(z, target)}
        return made

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The loss on real pictures and translations of each side."""
        terms: Terms = {}
        for side in "AB":
            net = self.discriminators[side]
            terms |= discriminator_game(self.config, net, batch[side], fakes[side], name=f"D_{side}")
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Five terms of each domain."""
        config, terms = self.config, Terms()
        for source, target in SIDES:
            judgement = self.discriminators[target](fakes[target])
            terms[f"G_{source}{target}"] = config.lambda_gan * adversarial(config, judgement)
            terms[f"kl_{source}"] = config.lambda_kl * fakes[f"code_{source}"].float().square().mean()
            terms[f"same_{source}"] = config.lambda_l1 * l1(fakes[f"same_{source}"], batch[source]).mean()
            code = self.encode(fakes[target], target)
            terms[f"cycle_kl_{source}"] = config.lambda_cycle_kl * code.float().square().mean()
            back = self.decode(noisy(code), source)
            terms[f"cycle_{source}"] = config.lambda_cycle * l1(back, batch[source]).mean()
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a, its reconstruction and translation; the same of b."""
        columns = []
        for source, target in SIDES:
            code = self.encode(batch[source], source)
            columns += [batch[source], self.decode(code, source), self.decode(code, target)]
        return columns
