"""The published schedule of FreeControl, written from its description (arXiv 2312.07536 and its reported settings).

999 steps of DDIM inversion, then 200 steps of five rows: unconditional edit and sibling, conditional reference, edit
and sibling. In the first 120 steps gradients are on for all five rows and all parameters, whose gradients nobody reads;
the energies use 64 min-max normalised components of three self-attentions' keys. Written without `freectl`, so that
nothing of ours speeds it up; its attention is the fused one and it makes no cross-attention maps, which flatters it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

INVERSION_STEPS, STEPS, GUIDED = 999, 200, 120
ROWS = 5
UNCOND_EDIT, UNCOND_SIBLING, REFERENCE, EDIT, SIBLING = range(ROWS)
COMPONENTS, APPEARANCE_COMPONENTS, GATE = 64, 2, 0.5
STRUCTURE_WEIGHT, APPEARANCE_WEIGHT, SCALE = 600.0, 60.0, 7.5


class PublishedSchedule:
    """The schedule on one UNet.

    Args:
        unet: its parameters require gradients, as a freshly loaded model's do.
        abar: cumulative alphas of the training schedule, (1000,).
        sites: names of the self-attentions' `to_k`.
        bases: for each site, mean (C,) and components (64, C).
        prompt, negative, source: text embeddings, (1, tokens, channels).

    Attributes:
        extra: further inputs of the UNet in guided calls, of five rows (SDXL's).
    """

    def __init__(
        self,
        unet: nn.Module,
        abar: Tensor,
        sites: list[str],
        bases: dict[str, tuple[Tensor, Tensor]],
        prompt: Tensor,
        negative: Tensor,
        source: Tensor,
    ) -> None:
        self.unet, self.abar, self.sites, self.bases = unet, abar, sites, bases
        self.source = source
        self.extra: dict[str, Any] = {}
        self.embeds = torch.cat([negative, negative, source, prompt, prompt])
        stride = len(abar) // STEPS
        self.timesteps = [i * stride + 1 for i in reversed(range(STEPS))]

    def level(self, timestep: int) -> Tensor:
        """Cumulative alpha at a timestep; below the first one it is the first one's."""
        return self.abar[max(timestep, 0)]

    @torch.no_grad()
    def invert(self, clean: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Levels 1 to 999 of the picture's latent, one row each."""
        latent = clean
        for timestep in range(1, INVERSION_STEPS + 1):
            noise = self.unet(latent, timestep, encoder_hidden_states=self.source, return_dict=False)[0]
            here, after = self.level(timestep - 1), self.level(timestep)
            guess = (latent - (1 - here).sqrt() * noise) / here.sqrt()
            latent = after.sqrt() * guess + (1 - after).sqrt() * noise
            yield timestep, latent

    def energy(self, keys: dict[str, Tensor]) -> Tensor:
        """Weighted structure and appearance energies of (5, tokens, C) keys, averaged over the layers."""
        total = keys[self.sites[0]].new_zeros(())
        for site, narrow in keys.items():
            mean, components = self.bases[site]
            key = narrow.float()
            s = (key - mean) @ components.T
            low, high = s.detach().amin(1, keepdim=True), s.detach().amax(1, keepdim=True)
            s = (s - low) / (high - low + 1e-7)
            structure = (s[EDIT] - s[REFERENCE]).square().mean()
            weights = s[..., :APPEARANCE_COMPONENTS]
            weights = weights * (weights > GATE)
            vectors = torch.einsum("btk,btc->bkc", weights, key) / (weights.sum(1)[..., None] + 1e-5)
            appearance = (vectors[EDIT] - vectors[SIBLING].detach()).square().mean()
            total = total + STRUCTURE_WEIGHT * structure + APPEARANCE_WEIGHT * appearance
        return total / len(keys)

    def rows(self, edit: Tensor, sibling: Tensor, reference: Tensor) -> Tensor:
        """The five rows' latents."""
        return torch.cat([edit, sibling, reference, edit, sibling])

    def guided_energy(self, rows: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """The five rows' noise and the energy, with all the graph there is."""
        seen: dict[str, Tensor] = {}
        modules = dict(self.unet.named_modules())
        hooks = [
            modules[site].register_forward_hook(lambda _m, _a, out, site=site: seen.__setitem__(site, out))
            for site in self.sites
        ]
        try:
            noise = self.unet(rows, timestep, self.embeds, **self.extra, return_dict=False)[0]
        finally:
            for hook in hooks:
                hook.remove()
        return noise, self.energy(seen)

    def step(self, index: int, edit: Tensor, sibling: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Edit and sibling after one of the 200 steps."""
        timestep = self.timesteps[index]
        gradient = None
        rows = self.rows(edit, sibling, reference)
        if index < GUIDED:
            with torch.enable_grad():
                rows.requires_grad_(True)
                noise, energy = self.guided_energy(rows, timestep)
                (all_rows,) = torch.autograd.grad(energy, rows)
            gradient, noise = all_rows[EDIT : EDIT + 1] * min(1.0, index / 10), noise.detach()
        else:
            with torch.no_grad():
                noise = self.unet(rows, timestep, encoder_hidden_states=self.embeds, return_dict=False)[0]
        here, after = self.level(timestep), self.level(timestep - 5)
        moved = []
        for latent, uncond, cond in ((edit, UNCOND_EDIT, EDIT), (sibling, UNCOND_SIBLING, SIBLING)):
            guided = noise[uncond : uncond + 1] + SCALE * (noise[cond : cond + 1] - noise[uncond : uncond + 1])
            clean = (latent - (1 - here).sqrt() * guided) / here.sqrt()
            moved.append(after.sqrt() * clean + (1 - after).sqrt() * guided)
        if gradient is not None:
            moved[0] = moved[0] - ((1 - here) * (1 - after)).sqrt() * gradient
        return moved[0], moved[1]

    def run(self, clean: Tensor, share: int = 1) -> Iterator[Tensor]:
        """The whole edit of a clean latent; yields after every UNet call, the result last.

        Args:
            share: run every `share`-th call of each stage only, for its time: steps of a stage cost the same.
        """
        levels = dict.fromkeys(self.timesteps, clean)
        for timestep, latent in self.invert(clean):
            levels[timestep] = latent
            yield latent
            if timestep * share >= INVERSION_STEPS:
                break
        edit = levels[self.timesteps[0]]
        sibling = edit.clone()
        for index in range(0, STEPS, share):
            edit, sibling = self.step(index, edit, sibling, levels[self.timesteps[index]])
            yield edit


@contextmanager
def saved_tensors(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Storages that autograd keeps for the backward in the `with` body, each once, without the model's parameters."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = tensor  # held, so that no later storage takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def saved_bytes(kept: dict[int, Tensor]) -> int:
    """Size of the storages of `saved_tensors`."""
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class FusedAttention(torch.autograd.Function):
    """Attention that keeps what fused kernels keep (inputs, output, one number a query); for the meta device only."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Shapes alone: (..., tokens, channels)."""
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, torch.empty(query.shape[:-1], device=query.device))
        return output

    @staticmethod
    def backward(ctx: Any, _grad: Tensor) -> tuple[Tensor, ...]:
        """Shapes alone."""
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **_options: Any) -> Tensor:
    """In place of `scaled_dot_product_attention`, whose meta form keeps whole attention maps."""
    return FusedAttention.apply(query, key, value)
