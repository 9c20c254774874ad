"""SPADE/GauGAN: label maps to pictures, the map in every normalisation."""

import torch
from torch import Tensor

from gan_baselines.config import Norm, SpadeGan
from gan_baselines.losses import kl_to_normal
from gan_baselines.models.base import Batch, Terms
from gan_baselines.models.labelled import LabelledModel
from gan_baselines.networks import Gaussian, PictureEncoder, SpadeGenerator, initialise


class SpadeModel(LabelledModel):
    """`LabelledModel` with the hinge loss, and G of SPADE blocks (arXiv 1903.07291, section 3).

    L_FM of a layer is over the number of scales. With `latent` numbers G starts from z, drawn from E(y) in training,
    and KL(E(y) || N(0, I)) joins the loss (appendix A): one map, many pictures, or the style of a given one.
    """

    def __init__(self, config: SpadeGan) -> None:
        super().__init__(config, config.norm)
        self.features_share = 1 / config.discriminator.scales
        net = SpadeGenerator(config.planes, config.width, config.ups, config.hidden, config.spade_norm,
                             latent=config.latent, size=config.size)  # fmt: skip
        self.generators["G"] = initialise(net, config.init)
        if config.latent:
            encoder = PictureEncoder(config.encoder_width, config.ups - 1, config.latent, Norm(kind="instance"))
            self.generators["E"] = initialise(encoder, config.init)

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """G(s, z)."""
        if not self.config.latent:
            return self.generators["G"](self.planes(x))
        z = torch.randn(len(x), self.config.latent, device=x.device) if style is None else style.expand(len(x), -1)
        return self.generators["G"](self.planes(x), z)

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """The mean of E(picture)."""
        return self.generators["E"](picture).mean if self.config.latent else super().style_of(direction, picture)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(s, z), and z's distribution."""
        planes = self.planes(batch["A"])
        if not self.config.latent:
            return {"B": self.generators["G"](planes), "planes": planes}
        code: Gaussian = self.generators["E"](batch["B"])
        made = self.generators["G"](planes, code.draw())
        return {"B": made, "planes": planes, "mean": code.mean, "log_variance": code.log_variance}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Those of `LabelledModel`, and lambda KL."""
        terms = super().generator_terms(batch, fakes, progress)
        if self.config.latent:
            terms["kl"] = self.config.lambda_kl * kl_to_normal(fakes["mean"], fakes["log_variance"]).mean()
        return terms
