"""BicycleGAN: one picture, many answers; the latent number that makes an answer can be read off it again."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gan_baselines.config import BicycleGan
from gan_baselines.losses import kl_to_normal, l1
from gan_baselines.models.base import Batch, Direction, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import Gaussian, PictureEncoder, UnetGenerator, initialise
from gan_baselines.networks.discriminators import patch_discriminator

BRANCHES = {"encoded": "B", "drawn": "R"}  # the discriminator of each


class BicycleGanModel(GanModel):
    """cVAE-GAN and cLR-GAN together (arXiv 1711.11586, eq. 4 to 9), on pairs (A, B), z of `latent` numbers:

    encoded, B -> z -> B':  L_GAN(G(A, z), D_B) + lambda_l1 |B - G(A, z)| + lambda_kl KL(E(B) || N(0, I)), z from E(B);
    drawn, z -> B' -> z':   L_GAN(G(A, z), D_R) + lambda_latent |z - E(G(A, z))|, z from N(0, I).

    Half of a batch is encoded; the other half's B are what D_R calls real. The last term moves G alone while there is
    an encoded branch. `encoded` false is cLR-GAN, `drawn` false cVAE-GAN.
    """

    def __init__(self, config: BicycleGan) -> None:
        super().__init__(config)
        self.branches = [name for name in BRANCHES if getattr(config, name)]
        self.judged = tuple(self.branches)  # type: ignore[misc]
        g = config.generator
        unet = UnetGenerator(g.downs, g.width, config.norm, skips=g.skips, dropout=g.dropout, latent=config.latent,
                             everywhere=config.everywhere)  # fmt: skip
        self.generators["G"] = initialise(unet, config.init)
        encoder = PictureEncoder(config.encoder_width, config.encoder_blocks, config.latent, config.norm)
        self.generators["E"] = initialise(encoder, config.init)
        for name in self.branches:
            net = patch_discriminator(config.discriminator, config.norm, config.conditional)
            self.discriminators[BRANCHES[name]] = initialise(net, config.init)

    @property
    def translators(self) -> dict[str, nn.Module]:
        """A to B."""
        return {"AB": Direction(self, "AB")}

    def parts(self, direction: str) -> tuple[str, ...]:
        """G, and E for styles."""
        return ("G", "E")

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """G(x, style)."""
        z = torch.randn(len(x), self.config.latent, device=x.device) if style is None else style.expand(len(x), -1)
        return self.generators["G"](x, z)

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """The mean of E(picture)."""
        return self.generators["E"](picture).mean

    def generate(self, batch: Batch, progress: float) -> Batch:
        """The answers of each branch, to the same inputs, and their latent numbers."""
        x, g, made = self._half(batch, "A"), self.generators["G"], Batch()
        if "encoded" in self.branches:
            code: Gaussian = self.generators["E"](self._half(batch, "B"))
            made |= {"mean": code.mean, "log_variance": code.log_variance, "encoded": g(x, code.draw())}
        if "drawn" in self.branches:
            z = torch.randn(len(x), self.config.latent, device=x.device)
            made |= {"z": z, "drawn": g(x, z)}
        return made

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Each branch's discriminator, on the half of the batch that is its own."""
        terms: Terms = {}
        for name in self.branches:
            net, other = self.discriminators[BRANCHES[name]], name == "drawn"
            seen = self._half(batch, "A", other) if self.config.conditional else None
            real, side = self._half(batch, "B", other), f"D_{BRANCHES[name]}"
            terms |= discriminator_game(self.config, net, real, fakes[name], seen, name=side)
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The terms of both branches."""
        config, terms = self.config, Terms()
        seen: tuple[Any, ...] = (self._half(batch, "A"),) if config.conditional else ()
        for name in self.branches:
            terms[f"G_{name}"] = adversarial(config, self.discriminators[BRANCHES[name]](fakes[name], *seen))
        if "encoded" in self.branches:
            terms["l1"] = config.lambda_l1 * l1(fakes["encoded"], self._half(batch, "B")).mean()
            terms["kl"] = config.lambda_kl * kl_to_normal(fakes["mean"], fakes["log_variance"]).mean()
        if "drawn" in self.branches:
            encoder = self.generators["E"]
            weights = dict(encoder.named_parameters())
            if "encoded" in self.branches:  # E would hide the number in the picture, where D does not look for it
                weights = {key: value.detach() for key, value in weights.items()}
            found: Gaussian = functional_call(encoder, weights, (fakes["drawn"],))
            terms["latent"] = config.lambda_latent * l1(found.mean, fakes["z"]).mean()
        return terms

    def _half(self, batch: Batch, side: str, second: bool = False) -> Tensor:
        count = max(1, len(batch[side]) // 2)
        return batch[side][-count:] if second else batch[side][:count]

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns A, B by its own number, three drawn answers, B."""
        own = self.translate("AB", batch["A"], self.style_of("AB", batch["B"]))
        return [batch["A"], own, *(self.translate("AB", batch["A"]) for _ in range(3)), batch["B"]]
