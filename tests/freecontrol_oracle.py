"""FreeControl in float64 straight from its equations, for one small Stable Diffusion pipeline, and as slow as it is.

Nothing of the package is used. Numbers of equations are those of arXiv 2312.07536, section 3; "code" is the published
program. Five rows a step, gradients everywhere, one loop over everything, DDIM and PCA written out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

BLOCK = "up_blocks.1"


@dataclass(frozen=True)
class Form:
    """One of the two published forms: the code, or the paper."""

    code: bool
    structure: float
    appearance: float
    seeds: int
    components: int
    seed_steps: int
    inversion_steps: int
    steps: int
    scale: float = 4.0
    background: float = 10.0
    window: float = 0.6
    seed_window: float = 0.6
    threshold: float = 0.3
    gate: float = 0.5


class Oracle:
    """A run under one condition picture; every result is computed when first asked for.

    Args:
        word: the concept's places in the tokens of the source prompt.
    """

    def __init__(self, pipe: Any, form: Form, picture: Image.Image, seed_prompt: str, source: str, prompt: str,
                 word: list[int] | None) -> None:  # fmt: skip
        self.pipe, self.unet, self.form, self.picture, self.word = pipe, pipe.unet, form, picture, word
        self.kind = pipe.scheduler.config.prediction_type
        self.abars = pipe.scheduler.alphas_cumprod.double()
        self.total = len(self.abars)
        names = [name for name, _ in self.unet.named_modules() if name.startswith(BLOCK + ".")]
        layers = [name for name in names if name.endswith("attn1.to_k")]
        self.sites = layers if form.code else layers[:1]
        self.cross = [name.removesuffix(".to_k") for name in names if name.endswith("attn2.to_k")]
        self.empty, self.seed_text, self.source, self.prompt = map(self.encoded, ("", seed_prompt, source, prompt))

    def encoded(self, text: str) -> Tensor:
        tokens = self.pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return self.pipe.text_encoder(tokens.input_ids)[0]

    def grid(self, steps: int) -> list[int]:
        """Leading spacing with offset 1, descending."""
        return [1 + i * (self.total // steps) for i in range(steps)][::-1]

    def abar(self, timestep: int) -> Tensor:
        return self.abars[max(timestep, 0)]  # set_alpha_to_one is off: the clean picture has the level of timestep 0

    def forward(self, x: Tensor, t: int, text: Tensor, names: list[str] = []) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: B006
        """Output of a whole forward, and the outputs of the named modules."""
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return self.unet.get_submodule(name).register_forward_hook(lambda _m, _a, out: seen.__setitem__(name, out))

        handles = [keep(name) for name in names]
        output = self.unet(x, t, encoder_hidden_states=text).sample
        for handle in handles:
            handle.remove()
        return output, seen

    def noise_of(self, output: Tensor, x: Tensor, t: int) -> Tensor:
        if self.kind == "epsilon":
            return output
        return self.abar(t) ** 0.5 * output + (1 - self.abar(t)) ** 0.5 * x

    def down(self, x: Tensor, eps: Tensor, t: int, steps: int) -> Tensor:
        """DDIM, eta 0."""
        here, after = self.abar(t), self.abar(t - self.total // steps)
        x0 = (x - (1 - here) ** 0.5 * eps) / here**0.5
        return after**0.5 * x0 + (1 - after) ** 0.5 * eps

    @torch.no_grad()
    def inverted(self, x: Tensor, text: Tensor, steps: int) -> dict[int, Tensor]:
        """The latents at each level; the code tells the network the level that it goes to."""
        levels = {}
        for t in self.grid(steps)[::-1]:
            below = t - self.total // steps
            lower, upper = self.abar(below), self.abar(t)
            told = t if self.form.code else max(below, 0)
            output = self.forward(x, told, text)[0]
            eps = output if self.kind == "epsilon" else lower**0.5 * output + (1 - lower) ** 0.5 * x
            x0 = (x - (1 - lower) ** 0.5 * eps) / lower**0.5
            levels[t] = x = upper**0.5 * x0 + (1 - upper) ** 0.5 * eps
        return levels

    @cached_property
    @torch.no_grad()
    def seed_keys(self) -> dict[tuple[int, str], np.ndarray]:
        """Rows of keys of all seed pictures: while sampling (code), or by inverting the finished pictures (paper)."""
        form, found = self.form, {}
        rows: dict[tuple[int, str], list[Tensor]] = {}
        grid = self.grid(form.seed_steps)
        kept = grid[: round(form.seed_window * form.seed_steps)]
        for seed in range(form.seeds):
            shape = (1, 4, self.unet.config.sample_size, self.unet.config.sample_size)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for t in grid:
                cond, keys = self.forward(x, t, self.seed_text, self.sites)
                if form.code and t in kept:
                    for site in self.sites:
                        rows.setdefault((t, site), []).append(keys[site][0])
                uncond = self.forward(x, t, self.empty)[0]
                output = uncond + form.scale * (cond - uncond)
                x = self.down(x, self.noise_of(output, x, t), t, form.seed_steps)
                if form.code and t == kept[-1]:
                    break
            if not form.code:
                levels = self.inverted(x, self.seed_text, form.seed_steps)
                for t in kept:
                    keys = self.forward(levels[t], t, self.seed_text, self.sites)[1]
                    for site in self.sites:
                        rows.setdefault((t, site), []).append(keys[site][0])
        for key, each in rows.items():
            found[key] = torch.cat(each).numpy()
        return found

    @cached_property
    def bases(self) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
        """Mean and components, each with its largest entry positive, rounded to the fp32 they are kept in."""
        found = {}
        for key, rows in self.seed_keys.items():
            pca = PCA(self.form.components, svd_solver="full").fit(rows)
            largest = np.abs(pca.components_).argmax(1)
            signs = np.sign(pca.components_[np.arange(len(largest)), largest])
            kept = (pca.mean_, pca.components_ * signs[:, None])
            found[key] = tuple(torch.tensor(one.astype(np.float32)).double() for one in kept)
        return found

    def basis(self, t: int, site: str) -> tuple[Tensor, Tensor]:
        return self.bases[min((key for key in self.bases if key[1] == site), key=lambda key: (abs(key[0] - t), key[0]))]

    def coordinates(self, keys: Tensor, t: int, site: str) -> Tensor:
        """Eqs. 1 and 2, (tokens, N): scaled to [0, 1] in the code only."""
        mean, components = self.basis(t, site)
        s = (keys - mean) @ components.T
        if self.form.code:
            low, high = s.detach().min(0).values, s.detach().max(0).values
            s = (s - low) / (high - low + 1e-7)
        return s

    @cached_property
    @torch.no_grad()
    def levels(self) -> dict[int, Tensor]:
        # pictures are read in fp32
        pixels = torch.tensor(np.asarray(self.picture).astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None].double()
        clean = self.pipe.vae.encode(pixels).latent_dist.mode() * self.pipe.vae.config.scaling_factor
        return self.inverted(clean, self.source, self.form.inversion_steps)

    def word_map(self, seen: dict[str, Tensor], row: int) -> Tensor:
        """Attention to the word's tokens, mean over heads and layers; (tokens,)."""
        layers = []
        for name in self.cross:
            heads = self.unet.get_submodule(name).heads
            queries, keys = (seen[f"{name}.{part}"][row].chunk(heads, -1) for part in ("to_q", "to_k"))
            for q, k in zip(queries, keys, strict=True):
                layers.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1)[:, self.word].sum(-1))
        return torch.stack(layers).mean(0)

    def structure(self, s: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
        """Eq. 4: sums over components and each region's own area (paper), or means with all tokens (code)."""
        if mask is None:
            squares = (s - reference) ** 2
            return squares.mean() if self.form.code else squares.sum(-1).mean()
        inside = mask > 0
        tau = reference[~inside].max(0).values
        forward, excess = (s[inside] - reference[inside]) ** 2, (s[~inside] - tau).clamp(min=0) ** 2
        if self.form.code:
            return forward.mean() + self.form.background * excess.sum() / s.numel()
        return forward.sum(-1).mean() + self.form.background * excess.sum(-1).mean()

    def vectors(self, keys: Tensor, s: Tensor) -> Tensor:
        """Eq. 5, for two components."""
        found = []
        for k in range(2):
            w = s[:, k] * (s[:, k] > self.form.gate) if self.form.code else s[:, k].sigmoid()
            found.append((w[:, None] * keys).sum(0) / (w.sum() + 1e-5))
        return torch.stack(found)

    def energy(self, seen: dict[str, Tensor], t: int, mask: Tensor | None) -> Tensor:
        """lambda_s g_s + lambda_a g_a, mean over layers; rows: -, -, example, control, appearance."""
        energies = []
        for site in self.sites:
            _, _, example, control, other = seen[site]
            s = self.coordinates(control, t, site)
            g = self.form.structure * self.structure(s, self.coordinates(example, t, site).detach(), mask)
            own = self.vectors(control, s)
            wanted = self.vectors(other, self.coordinates(other, t, site)).detach()
            squares = (own - wanted) ** 2
            over = squares.mean() if self.form.code else squares.sum(-1).mean()
            energies.append(g + self.form.appearance * over)
        return torch.stack(energies).mean()

    def run(self, seed: int, count: int) -> list[Tensor]:
        """The controlled latents after each of the first `count` steps."""
        form, grid, states = self.form, self.grid(self.form.steps), []
        shape = (1, 4, self.unet.config.sample_size, self.unet.config.sample_size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other, total = x, torch.zeros(())
        text = torch.cat([self.empty, self.empty, self.source, self.prompt, self.prompt])
        names = [*self.sites, *(f"{name}.{part}" for name in self.cross for part in ("to_q", "to_k"))]
        warm_end = round(0.05 * form.steps)
        for i, t in enumerate(grid[:count]):
            rows = torch.cat([x, other, self.levels[t], x, other]).requires_grad_(True)
            output, seen = self.forward(rows, t, text, names)
            mask = None
            if self.word is not None:
                total = total + self.word_map(seen, 2).detach()
                mean = total / (i + 1)
                mask = ((mean - mean.min()) / (mean.max() - mean.min()) > form.threshold).double()
                assert 0 < mask.sum() < len(mask)
            warm = min(1.0, i / warm_end) if form.code else 1.0
            assert i < form.window * form.steps
            (gradient,) = torch.autograd.grad(warm * self.energy(seen, t, mask), rows)
            g, output = gradient[3:4], output.detach()
            eps = self.noise_of(output[0:1] + form.scale * (output[3:4] - output[0:1]), x, t)
            plain = self.noise_of(output[1:2] + form.scale * (output[4:5] - output[1:2]), other, t)
            if form.code:
                before = self.abar(t - self.total // form.steps)
                x = self.down(x, eps, t, form.steps) - (1 - before) ** 0.5 * (1 - self.abar(t)) ** 0.5 * g
            else:
                x = self.down(x, eps + g, t, form.steps)  # eq. 7
            other = self.down(other, plain, t, form.steps)
            states.append(x)
        return states
