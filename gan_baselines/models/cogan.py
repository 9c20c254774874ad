"""CoGAN: pairs of pictures from one noise, learned from two collections without pairs."""

import torch
from torch import Tensor, nn

from gan_baselines.config import CoGan
from gan_baselines.errors import InputError
from gan_baselines.losses import discriminator_terms, generator_term, l2
from gan_baselines.models.base import DIRECTIONS, Batch, Direction, GanModel, Terms
from gan_baselines.networks import CoupledDiscriminator, CoupledGenerator, initialise, judge_pair


class CoGanModel(GanModel):
    """min over G, max over D: V(G_A, D_A) + V(G_B, D_B), the first layers of G and the last of D shared (arXiv
    1606.07536, eq. 3).

    Pairs are sheets, A left and B right. To translate a picture is to search the noise whose picture comes nearest to
    it (section 5): min over z |G_A(z) - x|^2 by Adam, and then G_B(z).
    """

    order = ("discriminator", "generator")

    def __init__(self, config: CoGan) -> None:
        super().__init__(config)
        net = CoupledGenerator(config.size, config.noise, config.width, config.own_generator)
        self.generators["G"] = initialise(net, config.init)
        judge = CoupledDiscriminator(config.size, config.width, config.own_discriminator)
        self.discriminators["D"] = initialise(judge, config.init)

    @property
    def sampler(self) -> nn.Module:
        """G, which draws sheets."""
        return self.generators["G"]

    @property
    def translators(self) -> dict[str, nn.Module]:
        """Both directions, by search."""
        return {name: Direction(self, name) for name in DIRECTIONS}

    def parts(self, direction: str) -> tuple[str, ...]:
        """G."""
        return ("G",)

    def translate(self, direction: str, x: Tensor, style: Tensor | None = None) -> Tensor:
        """The other half of the pair whose half comes nearest to x, after `search` steps from a drawn noise."""
        size, net = self.config.size, self.generators["G"]
        if x.shape[-2:] != (size, size):
            raise InputError("--input", f"a picture of {x.shape[-1]}x{x.shape[-2]} px", f"{size}x{size} px")
        modes = [part.training for part in net.modules()]
        net.eval()
        with torch.inference_mode(False), torch.enable_grad():
            wanted = x.clone()
            z = torch.randn(len(x), self.config.noise, device=x.device).requires_grad_()
            adam = torch.optim.Adam([z], lr=self.config.search_rate)
            for _ in range(self.config.search):
                adam.zero_grad()
                l2(net.one(z, direction[0]), wanted).sum().backward(inputs=[z])
                adam.step()
        with torch.no_grad():
            found = net.one(z, direction[1])
        for part, mode in zip(net.modules(), modes, strict=True):
            part.training = mode
        return found

    def generate(self, batch: Batch, progress: float) -> Batch:
        """Pairs from noise."""
        z = torch.randn(len(batch["A"]), self.config.noise, device=batch["A"].device)
        return {"sheet": self.generators["G"](z)}

    def discriminator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Both domains' terms, added."""
        real = torch.cat([batch["A"], batch["B"]], 3)
        judged = judge_pair(self.discriminators["D"], real, fakes["sheet"])
        on_real, on_fake = discriminator_terms(self.config.loss, *judged, "sum")
        return {"D_real": on_real, "D_fake": on_fake}

    def generator_terms(self, batch: Batch, fakes: Batch, progress: float) -> Terms:
        """Both domains' terms, added."""
        logits = self.discriminators["D"](fakes["sheet"]).logits
        return {"G_adversarial": generator_term(self.config.loss, logits, "sum")}

    @torch.no_grad()
    def preview(self, batch: Batch) -> list[Tensor]:
        """Two pairs a row, from fixed noise."""
        rows = len(batch["A"])
        z = torch.randn(2 * rows, self.config.noise, generator=torch.Generator().manual_seed(0)).to(batch["A"].device)
        return [half for sheets in self.generators["G"](z).split(rows) for half in sheets.chunk(2, 3)]
