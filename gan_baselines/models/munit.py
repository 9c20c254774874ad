"""MUNIT: a picture is a content that domains share and a style that they do not; translation draws a new style."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Munit
from gan_baselines.losses import l1
from gan_baselines.models.base import DIRECTIONS, Batch, Direction, GanModel, Terms
from gan_baselines.models.game import adversarial, discriminator_game
from gan_baselines.networks import Norm, StyledAutoencoder, initialise
from gan_baselines.networks.discriminators import patch_discriminator

SIDES = (("A", "B"), ("B", "A"))
PLAIN = Norm(kind="none")


class MunitModel(GanModel):
    """L_GAN + lambda_x |G(c, s) - x| + lambda_c |E_c(G(c, s')) - c| + lambda_s |E_s(G(c, s')) - s'| for both domains
    (arXiv 1804.04732, eq. 1 to 5), with c = E_c(x), s = E_s(x), s' from N(0, I) and G(c, s') the translation.

    `lambda_cycle` adds the style-augmented cycle (appendix A.1). The terms of the scales add up and D's are not halved.
    """

    order = ("discriminator", "generator")

    def __init__(self, config: Munit) -> None:
        super().__init__(config)
        for side in "AB":
            net = StyledAutoencoder(config.width, config.blocks, config.style)
            self.generators[side] = initialise(net, config.init)
            self.discriminators[side] = initialise(patch_discriminator(config.discriminator, PLAIN), "normal")

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Both directions."""
        return {name: Direction(self, name) for name in DIRECTIONS}

    def parts(self, direction: str) -> tuple[str, ...]:
        """Both autoencoders: the content is one's, the style the other's."""
        return ("A", "B")

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """G_target(E_c,source(x), style)."""
        style = self._drawn(x) if style is None else style.expand(len(x), -1)
        return self.generators[direction[1]].decode(self.generators[direction[0]].content(x), style)

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """E_s of the target's domain."""
        return self.generators[direction[1]].style(picture)

    def _drawn(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), self.config.style, device=x.device)

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Contents, reconstructions, drawn styles and translations of both sides."""
        made: Batch = {}
        for source, target in SIDES:
            net = self.generators[source]
            content, drawn = net.content(batch[source]), self._drawn(batch[source])
            made |= {f"content_{source}": content, f"style_{target}": drawn}
            made |= {f"same_{source}": net.decode(content, net.style(batch[source]))}
            made |= {target: self.generators[target].decode(content, drawn)}
        return made

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The loss on real pictures and translations of each side."""
        terms: Terms = {}
        for side in "AB":
            net = self.discriminators[side]
            terms |= discriminator_game(self.config, net, batch[side], fakes[side], name=f"D_{side}")
        return terms

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Adversarial, picture, content and style terms of both sides."""
        config, terms = self.config, Terms()
        for source, target in SIDES:
            net, fake = self.generators[target], fakes[target]
            terms[f"G_{source}{target}"] = config.lambda_gan * adversarial(config, self.discriminators[target](fake))
            content = net.content(fake)
            terms[f"same_{source}"] = config.lambda_picture * l1(fakes[f"same_{source}"], batch[source]).mean()
            terms[f"content_{source}"] = config.lambda_content * l1(content, fakes[f"content_{source}"]).mean()
            terms[f"style_{target}"] = config.lambda_style * l1(net.style(fake), fakes[f"style_{target}"]).mean()
            if config.lambda_cycle:
                own = self.generators[source]
                cycle = own.decode(content, own.style(batch[source]))
                terms[f"cycle_{source}"] = config.lambda_cycle * l1(cycle, batch[source]).mean()
        return terms

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns a and three translations of it; the same of b."""
        columns = []
        for source, target in SIDES:
            columns += [batch[source], *(self.translate(source + target, batch[source]) for _ in range(3))]
        return columns
