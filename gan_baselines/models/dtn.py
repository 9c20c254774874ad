"""DTN: domain transfer by a fixed representation that translation must leave as it is."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import Dtn
from gan_baselines.losses import l2, total_variation
from gan_baselines.models.base import Batch, Direction, GanModel, Source, Terms
from gan_baselines.networks import CodeDecoder, DcganDiscriminator, FeatureNet, initialise

FROM_SOURCE, FROM_TARGET, TARGET = 0, 1, 2


class DtnModel(GanModel):
    """G = g(f(x)) with f frozen (arXiv 1611.02200, eq. 3 to 8); D tells three kinds of pictures apart:

    L_D = -E log D_1(G(s)) - E log D_2(G(t)) - E log D_3(t),   L_GANG = -E log D_3(G(s)) - E log D_3(G(t)),
    L_G = L_GANG + alpha E d(f(s), f(G(s))) + beta E d2(t, G(t)) + gamma L_TV(G),   d, d2 mean squares.

    s = A, t = B. The paper's losses: its best-known code has two kinds, and trains f by d instead of g.
    """

    order = ("discriminator", "generator")
    carried = ("f",)

    def __init__(self, config: Dtn) -> None:
        super().__init__(config)
        trunk = FeatureNet(config.features)
        self.helpers["f"] = trunk.requires_grad_(False).eval()
        self.generators["g"] = initialise(
            CodeDecoder(trunk.widths[-1], config.features.stages, config.width), config.init
        )
        self.discriminators["D"] = initialise(DcganDiscriminator(config.size, config.width, outputs=3), config.init)

    def sources(self) -> list[Source]:
        """And the representation f."""
        return [*super().sources(), Source("features_from", "helper", self.helpers)]

    @property
    def translators(self) -> dict[str, nn.Module]:
        """g(f(x))."""
        return {"AB": Direction(self, "AB")}

    def parts(self, direction: str) -> tuple[str, ...]:
        """g."""
        return ("g",)

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """g(f(x))."""
        return self.generators["g"](self.helpers["f"].code(x))

    def generate(self, batch: Batch, progress: float) -> Batch:
        """G(s) and G(t)."""
        return {"from_A": self.translate("AB", batch["A"]), "from_B": self.translate("AB", batch["B"])}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_D."""
        return {
            "D_from_source": self._says(fakes["from_A"], FROM_SOURCE),
            "D_from_target": self._says(fakes["from_B"], FROM_TARGET),
            "D_target": self._says(batch["B"], TARGET),
        }

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """L_G."""
        config, f = self.config, self.helpers["f"]
        moved, kept = fakes["from_A"], fakes["from_B"]
        terms = {
            "G_adversarial": self._says(moved, TARGET) + self._says(kept, TARGET),
            "constancy": config.lambda_constancy * l2(f.code(moved), f.code(batch["A"])).mean(),
            "identity": config.lambda_identity * l2(kept, batch["B"]).mean(),
        }
        if config.lambda_variation:
            terms["variation"] = config.lambda_variation * (total_variation(moved) + total_variation(kept))
        return terms

    def _says(self, pictures: Tensor, kind: int) -> Tensor:
        logits = self.discriminators["D"](pictures).logits[0].flatten(1).float()
        return functional.cross_entropy(logits, torch.full((len(logits),), kind, device=logits.device))

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Columns s, G(s), t, G(t)."""
        return [batch["A"], self.translate("AB", batch["A"]), batch["B"], self.translate("AB", batch["B"])]
