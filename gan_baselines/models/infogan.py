"""InfoGAN: codes beside the noise that a network must be able to read off the picture."""

from math import log, pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import InfoGan
from gan_baselines.data.marks import class_index
from gan_baselines.errors import InputError
from gan_baselines.models.base import Batch, GanModel, Sampler, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import CodeReader, DcganDiscriminator, DcganGenerator, initialise


class InfoGanModel(GanModel):
    """min over G, Q, max over D: V(D, G) - lambda L_I(G, Q),  L_I = E log Q(c | G(z, c)) + H(c) <= I(c; G(z, c)) (arXiv
    1606.03657, eq. 5 and 6).

    c: one of `categories`, and `continuous` numbers uniform in [-1, 1], for which Q is a normal of deviation 1. z is
    uniform in [-1, 1]. Q shares D's convolutions and its optimiser; lambda L_I is taken off both losses.
    """

    order = ("discriminator", "generator")
    judged = ("picture",)

    def __init__(self, config: InfoGan) -> None:
        super().__init__(config)
        codes = config.categories + config.continuous
        self.generators["G"] = initialise(DcganGenerator(config.size, config.noise + codes, config.width), config.init)
        judge = DcganDiscriminator(config.size, config.width)
        self.discriminators["D"] = initialise(judge, config.init)
        self.discriminators["Q"] = initialise(CodeReader(judge.widest, codes), config.init)

    @property
    def sampler(self) -> nn.Module:
        """G, with the codes that are asked for and drawn ones in place of the others."""
        return Sampler(self, self.config.noise + self.config.categories + self.config.continuous)

    def drawn(self, z: Tensor, condition: Any) -> Tensor:
        """G(noise, codes), the codes that are NaN in `condition` drawn."""
        numbers = latent(z, self.config)
        if condition is not None:
            noise, codes = numbers.tensor_split((self.config.noise,), 1)
            numbers = torch.cat([noise, torch.where(condition.isnan(), codes, condition)], 1)
        return self.generators["G"](numbers)

    def condition(self, label: str | None, prompt: str | None, code: list[float] | None) -> Tensor:
        """A category by its number, and continuous codes; NaN where one is to be drawn."""
        super().condition(None, prompt, None)
        config = self.config
        codes = torch.full((config.categories + config.continuous,), float("nan"))
        if label is not None:
            index = class_index(label, tuple(str(n) for n in range(config.categories)))
            codes[: config.categories] = functional.one_hot(torch.tensor(index), config.categories).float()
        if code is not None:
            if len(code) != config.continuous:
                raise InputError("--code", f"{len(code)} numbers", f"{config.continuous}")
            codes[config.categories :] = torch.tensor(code)
        return codes

    def some_condition(self) -> Tensor:
        """The first category, and continuous codes of 0."""
        return self.condition("0", None, [0.0] * self.config.continuous)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Pictures and their codes."""
        config, real = self.config, batch["picture"]
        z = torch.randn(len(real), config.noise + config.categories + config.continuous, device=real.device)
        numbers = latent(z, config)
        return {"picture": self.generators["G"](numbers), "code": numbers[:, config.noise :]}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """D's two terms, not halved, and -lambda L_I."""
        terms = discriminator_game(self.config, self.discriminators["D"], batch["picture"], fakes["picture"])
        return terms | {"D_information": self.config.lambda_information * self.uncertainty(fakes)}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """G's term and -lambda L_I."""
        judgement = self.discriminators["D"](fakes["picture"])
        own = self.config.lambda_information * self.uncertainty(fakes)
        return {"G_adversarial": adversarial(self.config, judgement), "G_information": own}

    def uncertainty(self, fakes: Batch) -> Tensor:
        """-L_I = -E log Q(c | x) - H(c) in nats: 0 where Q knows as much as without the picture."""
        config = self.config
        read = self.discriminators["Q"](self.discriminators["D"](fakes["picture"]).features[-1]).float()
        category, number = fakes["code"].split([config.categories, config.continuous], 1)
        known = functional.cross_entropy(read[:, : config.categories], category) - log(config.categories)
        misses = (number - read[:, config.categories :]).square().sum(1).mean() / 2
        return known + misses + config.continuous * (log(2 * pi) / 2 - log(2))

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """A column a category (ten at most), the same noise in a row."""
        config, rows = self.config, len(batch["picture"])
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(rows, config.noise + config.categories + config.continuous, generator=rng)
        device = batch["picture"].device
        codes = [self.condition(str(n), None, None) for n in range(min(10, config.categories))]
        return [self.sampler(z.to(device), code.expand(rows, -1).to(device)) for code in codes]


def latent(z: Tensor, config: InfoGan) -> Tensor:
    """Normal numbers as noise and continuous codes uniform in [-1, 1], and a category drawn evenly.

    erf(z / sqrt 2) is uniform; the largest of equally distributed numbers is each equally often.
    """
    noise, category, number = z.split([config.noise, config.categories, config.continuous], 1)
    one_hot = functional.one_hot(category.argmax(1), config.categories).to(z.dtype)
    return torch.cat([torch.erf(noise / sqrt(2)), one_hot, torch.erf(number / sqrt(2))], 1)
