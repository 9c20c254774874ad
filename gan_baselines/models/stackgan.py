"""StackGAN: words to a small picture, and the small picture and the words to a large one."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import StackGan
from gan_baselines.data.marks import word_ids
from gan_baselines.errors import InputError
from gan_baselines.losses import kl_to_normal
from gan_baselines.models.base import Batch, GanModel, Sampler, Source, Terms
from gan_baselines.networks import Gaussian, initialise, text


class StackGanModel(GanModel):
    """Stage I and, with stage I frozen, stage II (arXiv 1612.03242, eq. 3 to 6):

    L_D = -E log D(x, t) - (E log(1 - D(x, t')) + E log(1 - D(G(z, c), t))) / 2,   t' another sentence of the batch,
    L_G = -E log D(G(z, c), t) + lambda KL(N(mu(t), sigma(t)) || N(0, I)),   c from N(mu(t), sigma(t)).

    KL is the mean over numbers, D knows the sentence by mu without gradient, and stage II adds the loss of the picture
    alone, as in the published code. `augment` false takes c = mu, without KL: no conditioning augmentation.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: StackGan) -> None:
        super().__init__(config)
        c, second = config, config.stage == 2
        self.generators["T"] = text.TextCondition(max(1, len(c.words)), c.text, c.condition)
        self.generators["G"] = text.TextGenerator(c.first_size, c.noise + c.condition, c.width)
        if second:
            self.carried = ("T", "G")  # type: ignore[misc]
            self.helpers.update({name: copy.deepcopy(net) for name, net in self.generators.items()})
            self.generators["G"] = text.TextRefiner(c.first_size, c.size, c.condition, c.width, c.coarse, c.blocks)
        self.side = c.size if second else c.first_size
        self.discriminators["D"] = text.TextDiscriminator(self.side, c.condition, c.width, plain=second)
        initialise(nn.ModuleList([self.generators, self.discriminators]), c.init)

    def sources(self) -> list[Source]:
        """And stage I."""
        return super().sources() + [Source("stage_from", "helper", self.helpers)] * (self.config.stage - 1)

    @property
    def sampler(self) -> nn.Module:
        """Words to pictures."""
        return Sampler(self, self.numbers)

    def drawn(self, z: Tensor, condition: Any) -> Tensor:
        """The pictures of word numbers."""
        return self.draw(condition.long(), z)[0]

    def condition(self, label: str | None, prompt: str | None, code: list[float] | None) -> Tensor:
        """The numbers of the prompt's words."""
        super().condition(label, None, code)
        if prompt is None:
            raise InputError("--prompt", "nothing", f"a sentence of {', '.join(self.config.words)}")
        return word_ids(prompt, self.config.words, self.config.length).float()

    def some_condition(self) -> Tensor:
        """The first word."""
        return self.condition(None, self.config.words[0], None)

    def conditions(self, marks: dict[str, Tensor]) -> Tensor:
        """The numbers of the captions' words."""
        return marks["words"].float()

    def draw(self, words: Tensor, noise: Tensor) -> tuple[Tensor, Gaussian]:
        """The picture from normal numbers (N, `numbers`), and the distribution of its text."""
        z, first, second = noise.tensor_split((self.config.noise, self.config.noise + self.config.condition), 1)
        code: Gaussian = self.generators["T"](words)
        if self.config.stage == 1:
            return self.generators["G"](torch.cat([z, self._shifted(code, first)], 1)), code
        with torch.no_grad():
            small = self.helpers["G"](torch.cat([z, self._shifted(self.helpers["T"](words), first)], 1))
        return self.generators["G"](small, self._shifted(code, second)), code

    def _shifted(self, code: Gaussian, noise: Tensor) -> Tensor:
        return code.mean + noise * (code.log_variance / 2).exp() if self.config.augment else code.mean

    @property
    def numbers(self) -> int:
        """Normal numbers that a picture takes."""
        return self.config.noise + self.config.stage * self.config.condition

    def generate(self, batch: Batch, progress: float) -> Batch:
        """The picture and the distribution of its words."""
        noise = torch.randn(len(batch["words"]), self.numbers, device=batch["picture"].device)
        picture, code = self.draw(batch["words"], noise)
        return {"picture": picture, "mean": code.mean, "log_variance": code.log_variance}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_D."""
        net, mean, real = self.discriminators["D"], fakes["mean"], self._real(batch)
        place, known = text.other_sentences(batch["words"])
        right, fake = net(real, mean).logits, net(fakes["picture"], mean).logits
        wrong = text.masked_bce(net(real, mean[place]).logits[0], 0.0, known.float())
        made = text.masked_bce(fake[0], 0.0)
        terms = {"D_real": text.masked_bce(right[0], 1.0), "D_wrong": wrong / 2, "D_fake": made / 2}
        if self.config.stage == 2:
            terms["D_plain"] = text.masked_bce(right[1], 1.0) / 2 + text.masked_bce(fake[1], 0.0) / 2
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_G."""
        logits = self.discriminators["D"](fakes["picture"], fakes["mean"].detach()).logits
        terms = {"G_adversarial": torch.stack([text.masked_bce(part, 1.0) for part in logits]).sum()}
        if self.config.augment:
            kl = kl_to_normal(fakes["mean"], fakes["log_variance"]).mean() / self.config.condition
            terms["kl"] = self.config.lambda_kl * kl
        return terms

    def _real(self, batch: Batch) -> Tensor:
        return functional.interpolate(batch["picture"], size=(self.side, self.side), mode="area")

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns: the picture of a caption, and three answers to the caption."""
        rng, rows = torch.Generator().manual_seed(0), len(batch["words"])
        noise = [torch.randn(rows, self.numbers, generator=rng).to(batch["picture"].device) for _ in range(3)]
        return [self._real(batch), *(self.draw(batch["words"], part)[0] for part in noise)]
