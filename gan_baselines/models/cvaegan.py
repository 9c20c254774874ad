"""CVAE-GAN: an autoencoder whose pictures belong to a class, judged in the features of two networks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import CvaeGan
from gan_baselines.data.marks import class_index
from gan_baselines.errors import InputError
from gan_baselines.losses import kl_to_normal
from gan_baselines.models.base import Batch, GanModel, Sampler, Terms
from gan_baselines.models.game import discriminator_game
from gan_baselines.networks import DcganDiscriminator, DcganGenerator, Gaussian, initialise


class CvaeGanModel(GanModel):
    """lambda_kl L_KL + lambda_g L_G + lambda_gd L_GD + lambda_gc L_GC for E and G, L_D + L_C for D and C (arXiv
    1703.10155, eq. 3 to 9), x' = G(z, c) with z from E(x, c), y = G(z, c) with z from N(0, I):

    L_G = (|x - x'|^2 + |f_D(x) - f_D(x')|^2 + |f_C(x) - f_C(x')|^2) / 2,
    L_GD = |E f_D(x) - E f_D(y)|^2 / 2,   L_GC = sum over c of |E_c f_C(x) - E_c f_C(y)|^2 / 2.

    Squared norms are sums over numbers; E are means of the batch, where the paper keeps running means.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: CvaeGan) -> None:
        super().__init__(config)
        size, width, classes = config.size, config.width, max(1, len(config.classes))
        encoder = DcganDiscriminator(size, width, 3 + classes, outputs=2 * config.latent)
        self.generators["E"] = initialise(encoder, config.init)
        self.generators["G"] = initialise(DcganGenerator(size, config.latent + classes, width), config.init)
        self.discriminators["D"] = initialise(DcganDiscriminator(size, width), config.init)
        self.discriminators["C"] = initialise(DcganDiscriminator(size, width, outputs=classes), config.init)

    @property
    def sampler(self) -> nn.Module:
        """G, under a class."""
        return Sampler(self, self.config.latent)

    def drawn(self, z: Tensor, condition: Any) -> Tensor:
        """G(z, c)."""
        if condition is None:
            raise InputError("--class", "nothing", ", ".join(self.config.classes))
        return self.generators["G"](torch.cat([z, condition], 1))

    def condition(self, label: str | None, prompt: str | None, code: list[float] | None) -> Tensor:
        """The class."""
        if label is None:
            raise InputError("--class", "nothing", ", ".join(self.config.classes))
        super().condition(None, prompt, code)
        return self._one_hot(torch.tensor(class_index(label, self.config.classes)))

    def some_condition(self) -> Tensor:
        """The first class."""
        return self.condition(self.config.classes[0], None, None)

    def conditions(self, marks: dict[str, Tensor]) -> Tensor:
        """The classes."""
        return self._one_hot(marks["class"])

    def _one_hot(self, classes: Tensor) -> Tensor:
        return functional.one_hot(classes, max(1, len(self.config.classes))).float()

    def encode(self, picture: Tensor, classes: Tensor) -> Gaussian:
        """E(x, c)."""
        planes = classes[:, :, None, None].expand(-1, -1, *picture.shape[-2:])
        numbers = self.generators["E"](torch.cat([picture, planes], 1)).logits[0].flatten(1)
        return Gaussian(*numbers.chunk(2, 1))

    def generate(self, batch: Batch, progress: float) -> Batch:
        """x' as "same", y as "picture", and E's distribution."""
        c = self._one_hot(batch["class"])
        code, g = self.encode(batch["picture"], c), self.generators["G"]
        z = torch.randn_like(code.mean)
        same, drawn = (g(torch.cat([numbers, c], 1)) for numbers in (code.draw(), z))
        return {"mean": code.mean, "log_variance": code.log_variance, "same": same, "picture": drawn}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_D and L_C."""
        terms = discriminator_game(self.config, self.discriminators["D"], batch["picture"], fakes["picture"])
        logits = self.discriminators["C"](batch["picture"]).logits[0].flatten(1)
        return terms | {"D_class": functional.cross_entropy(logits.float(), batch["class"])}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_KL, L_G, L_GD and L_GC."""
        config, real = self.config, batch["picture"]
        pictures = {"x": real, "same": fakes["same"], "y": fakes["picture"]}
        f_d, f_c = ({key: net(p).features[-1] for key, p in pictures.items()} for net in self.discriminators.values())
        pairs = ((real, fakes["same"]), (f_d["x"], f_d["same"]), (f_c["x"], f_c["same"]))
        rebuilt = torch.stack([_square(a, b).mean() for a, b in pairs]).sum()
        means = _square(f_d["x"].mean(0, keepdim=True), f_d["y"].mean(0, keepdim=True)).mean()
        of_classes = [_square(f_c["x"][own].mean(0, keepdim=True), f_c["y"][own].mean(0, keepdim=True)).mean()
                      for own in (batch["class"] == c for c in batch["class"].unique())]  # fmt: skip
        kl = kl_to_normal(fakes["mean"], fakes["log_variance"]).mean()
        return {"kl": config.lambda_kl * kl, "same": config.lambda_g * rebuilt, "G_features": config.lambda_gd * means,
                "G_class_features": config.lambda_gc * torch.stack(of_classes).sum()}  # fmt: skip

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns x, x', two pictures of its class."""
        c = self._one_hot(batch["class"])
        numbers = [self.encode(batch["picture"], c).mean, *(torch.randn(2, len(c), self.config.latent).to(c.device))]
        return [batch["picture"], *(self.generators["G"](torch.cat([z, c], 1)) for z in numbers)]


def _square(a: Tensor, b: Tensor) -> Tensor:
    """Half of the squared distance of each sample."""
    return 0.5 * (a.float() - b.float()).square().flatten(1).sum(1)
