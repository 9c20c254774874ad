"""AdaIN: any style in one pass, by the mean and deviation of a frozen network's features."""

import torch
from torch import Tensor, nn

from gan_baselines.config import Adain
from gan_baselines.losses import l2, moments
from gan_baselines.models.base import Batch, Direction, GanModel, Source, Terms
from gan_baselines.networks import FeatureNet, MirrorDecoder, adain, initialise


class AdainModel(GanModel):
    """min over g: ||f(g(t)) - t||^2 + lambda_s sum_i ||mu(f_i(g(t))) - mu(f_i(s))||^2 + ||sigma(..) - sigma(..)||^2
    (arXiv 1703.06868, eq. 11 to 13), with t = AdaIN(f(c), f(s)) (eq. 8); c = A, s = B.

    The squares are means over channels and places, as the code with lambda_s 10 has them. f_i are the first
    activations of the stages up to `layer`.
    """

    order = ("generator",)
    carried = ("f",)

    def __init__(self, config: Adain) -> None:
        super().__init__(config)
        trunk = FeatureNet(config.features)
        self.count = trunk.place(config.layer) + 1
        self.helpers["f"] = trunk.requires_grad_(False).eval()
        self.generators["decoder"] = initialise(MirrorDecoder(trunk, config.layer), config.init)

    def sources(self) -> list[Source]:
        """And the feature network."""
        return [*super().sources(), Source("features_from", "helper", self.helpers)]

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Content to content in a style."""
        return {"AB": Direction(self, "AB")}

    def parts(self, direction: str) -> tuple[str, ...]:
        """The decoder."""
        return ("decoder",)

    def code(self, picture: Tensor) -> Tensor:
        """f at `layer`."""
        return self.helpers["f"](picture, self.count)[-1]

    def style_of(self, direction: str, picture: Tensor) -> Tensor:
        """Deviations and means, (1, 2 C). Styles mix by mixing these numbers, a picture's own among them."""
        mean, deviation = moments(self.code(picture))
        return torch.cat([deviation, mean], 1)

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """g(AdaIN(f(x), style)); without a style its own, which gives g(f(x))."""
        content = self.code(x)
        return self._decoded(content, self.style_of(direction, x) if style is None else style).clamp(-1, 1)

    def _decoded(self, content: Tensor, style: Tensor) -> Tensor:
        scale, shift = style.expand(len(content), -1).chunk(2, 1)
        return self.generators["decoder"](adain(content, scale, shift))

    def generate(self, batch: Batch, progress: float) -> Batch:
        """t and g(t)."""
        scale, shift = self.style_of("AB", batch["B"]).chunk(2, 1)
        target = adain(self.code(batch["A"]), scale, shift)
        return {"target": target, "B": self.generators["decoder"](target)}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The two terms."""
        f = self.helpers["f"]
        made, wanted = f(fakes["B"], self.count), f(batch["B"], self.count)
        places = [place for place in f.first_places if place < self.count]
        apart = [l2(a, b).mean() for i in places for a, b in zip(moments(made[i]), moments(wanted[i]), strict=True)]
        return {
            "content": l2(made[-1], fakes["target"]).mean(),
            "style": self.config.lambda_style * torch.stack(apart).sum(),
        }

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """There is no discriminator."""
        return {}

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns content, style, the content in that style, and the content decoded as it is."""
        styled = self.translate("AB", batch["A"], self.style_of("AB", batch["B"]))
        return [batch["A"], batch["B"], styled, self.translate("AB", batch["A"])]
