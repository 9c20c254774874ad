"""Steps as the papers describe them, each saving a switch: what our trainer is measured against."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.models import Batch, GanModel
from gan_baselines.networks.convolutions import Conv2d, ConvTranspose2d
from gan_baselines.networks.norms import InstanceNorm2d
from gan_baselines.pool import ImagePool


@dataclass(frozen=True)
class Savings:
    """Departures from the plain step; all off is the plain step."""

    joint_discriminator: bool = False
    joint_generator: bool = False
    fused_adam: bool = False
    no_item: bool = False
    coarse_products: bool = False
    group_norm_kernel: bool = False
    channels_last: bool = False


class PlainStep:
    """One optimiser step of CycleGAN or Pix2Pix on the networks of `model`.

    CycleGAN: six generator passes, frozen discriminators, one Adam for the generators, then each discriminator on real
    pictures and on pooled fakes in separate passes, one Adam for both. Pix2Pix: discriminator on the fake pair and the
    real pair, then the generator. Every loss is read as a number after every step.
    """

    def __init__(self, model: GanModel, savings: Savings) -> None:
        self.model, self.savings = model, savings
        if not savings.coarse_products:
            _use_library((Conv2d, ConvTranspose2d), model)
        if not savings.group_norm_kernel:
            _use_library((InstanceNorm2d,), model)
        if savings.channels_last:
            model.to(memory_format=torch.channels_last)
        parts = (model.generators, model.discriminators)
        fused = savings.fused_adam or None
        self.adams = [torch.optim.Adam(p.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=fused) for p in parts]
        self.pools = {side: ImagePool(50, side) for side in "AB"}

    def __call__(self, batch: Batch) -> None:
        """Train on one batch."""
        if self.savings.channels_last:
            batch = {k: v.contiguous(memory_format=torch.channels_last) for k, v in batch.items()}
        losses = self._cyclegan(batch) if self.model.config.name == "cyclegan" else self._pix2pix(batch)
        if not self.savings.no_item:
            self.last = [loss.item() for loss in losses]

    def _cyclegan(self, batch: Batch) -> list[Tensor]:
        g, f, a, b = *(self.model.generators[k] for k in ("AB", "BA")), batch["A"], batch["B"]
        d = self.model.discriminators
        fake_b, same_b = self._generate(g, a, b)
        fake_a, same_a = self._generate(f, b, a)
        d.requires_grad_(False)
        losses = [
            functional.mse_loss(y := d["B"](fake_b).logits[0], torch.ones_like(y)),
            functional.mse_loss(y := d["A"](fake_a).logits[0], torch.ones_like(y)),
            10 * functional.l1_loss(f(fake_b), a),
            10 * functional.l1_loss(g(fake_a), b),
            5 * functional.l1_loss(same_b, b),
            5 * functional.l1_loss(same_a, a),
        ]
        self._update(self.adams[0], losses)
        d.requires_grad_(True)
        halves = []
        for side, fake in (("A", fake_a), ("B", fake_b)):
            real, made = self._judge(d[side], batch[side], self.pools[side](fake))
            halves.append(_half(functional.mse_loss, real, made))
        self._update(self.adams[1], halves)
        return losses + halves

    def _pix2pix(self, batch: Batch) -> list[Tensor]:
        a, b = batch["A"], batch["B"]
        d, bce = self.model.discriminators["B"], functional.binary_cross_entropy_with_logits
        fake = self.model.generators["AB"](a)
        real, made = d(b, a).logits[0], d(fake.detach(), a).logits[0]
        half = _half(bce, real, made)
        self._update(self.adams[1], [half])
        d.requires_grad_(False)
        logits = d(fake, a).logits[0]
        losses = [bce(logits, torch.ones_like(logits)), 100 * functional.l1_loss(fake, b)]
        self._update(self.adams[0], losses)
        d.requires_grad_(True)
        return [half, *losses]

    def _generate(self, net: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.savings.joint_generator:
            fake, same = net(torch.cat([source, target])).chunk(2)
            return fake, same
        return net(source), net(target)

    def _judge(self, net: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if self.savings.joint_discriminator:
            one, two = net(torch.cat([real, fake])).logits[0].chunk(2)
            return one, two
        return net(real).logits[0], net(fake).logits[0]

    def _update(self, adam: torch.optim.Optimizer, losses: list[Tensor]) -> None:
        adam.zero_grad()
        torch.stack(losses).sum().backward()
        adam.step()


def _half(distance: Any, real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (distance(real, torch.ones_like(real)) + distance(fake, torch.zeros_like(fake)))


def _use_library(own_layers: tuple[type[nn.Module], ...], model: nn.Module) -> None:
    for part in model.modules():
        if type(part) in own_layers:
            part.__class__ = type(part).__mro__[1]  # the same weights, the library's forward
