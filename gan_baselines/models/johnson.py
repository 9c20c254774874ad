"""Fast style transfer: a network a style, trained by the distances of a frozen network's features."""

import torch
from torch import Tensor

from gan_baselines.config import Johnson
from gan_baselines.losses import gram, l2, total_variation
from gan_baselines.models.base import Batch, GanModel, Source, Terms
from gan_baselines.networks import FeatureNet, initialise, picture_generator


class JohnsonModel(GanModel):
    """min over G: lambda_c ||f_j(G(x)) - f_j(x)||^2 / (C H W) + lambda_s sum_i ||Gr(f_i(G(x))) - Gr(f_i(s))||^2
    + lambda_tv TV(G(x)), Gr = F F^T / (C H W) (arXiv 1603.08155, eq. 2 to 5); x = A, s = B.

    The published network mirrors 40 px at its start and pads nothing in its blocks; here each block mirrors its own.
    """

    order = ("generator",)

    def __init__(self, config: Johnson) -> None:
        super().__init__(config)
        trunk = FeatureNet(config.features)
        self.content = trunk.place(config.content_layer, "model.content_layer")
        self.styles = [trunk.place(name, "model.style_layers") for name in config.style_layers]
        self.count = 1 + max(self.content, *self.styles)
        self.helpers["f"] = trunk.requires_grad_(False).eval()
        self.generators["AB"] = initialise(picture_generator(config.generator, config.norm), config.init)

    def sources(self) -> list[Source]:
        """And the feature network."""
        return [*super().sources(), Source("features_from", "helper", self.helpers)]

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(x)."""
        return {"B": self.generators["AB"](batch["A"])}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """The three terms."""
        config = self.config
        made, content, style = (self.helpers["f"](x, self.count) for x in (fakes["B"], batch["A"], batch["B"]))
        made, content, style = self.scaled(made, content, style)
        apart = [self.distance(made[place], style[place]) for place in self.styles]
        return {
            "content": config.lambda_content * l2(made[self.content], content[self.content]).mean(),
            "style": config.lambda_style * torch.stack(apart).sum(),
            "variation": config.lambda_variation * total_variation(fakes["B"]),
        }

    def scaled(self, *all_features: list[Tensor]) -> list[list[Tensor]]:
        """With `scale_features`, each layer divided by its mean over the style pictures, the last of the arguments."""
        if not self.config.scale_features:
            return list(all_features)
        means = [layer.mean().clamp_min(1e-8) for layer in all_features[-1]]
        return [[layer / mean for layer, mean in zip(layers, means, strict=True)] for layers in all_features]

    def distance(self, made: Tensor, style: Tensor) -> Tensor:
        """||Gr - Gr||^2, summed over pairs of channels."""
        channels = made.shape[1]
        return ((gram(made) - gram(style)) / channels).square().sum((1, 2)).mean()

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """There is no discriminator."""
        return {}

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns x, G(x), a style picture."""
        return [batch["A"], self.generators["AB"](batch["A"]), batch["B"]]
