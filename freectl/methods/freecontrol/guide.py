"""FreeControl's guided step (arXiv 2312.07536, section 3.2), as a controller of the denoising loop."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from freectl.denoising.cost import Cost
from freectl.denoising.grad import frozen
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step, of_lane
from freectl.denoising.taps import tap
from freectl.methods.freecontrol.settings import FreeControlSettings
from freectl.methods.observer import NOBODY, Observer
from freectl.semantics import energies
from freectl.semantics.analysis import TOLERANCE, Site
from freectl.semantics.bases import SemanticBases
from freectl.semantics.reference import Reference, coordinates

FULL = 2.0
"""Latents' deviations that guidance at strength 1 would move them by, a radian of the path's turn."""

logger = logging.getLogger(__name__)


@dataclass
class Target:
    """What one concept of one guidance picture asks of the edit.

    Attributes:
        bases: semantic bases of the tapped sites.
        reference: coordinates, and masks if any, of the guidance picture at the guided timesteps; batch B, or 1 for
            all outputs alike.
        appearance: (timestep, site) -> appearance vectors (B or 1, N_a, C) to reach; empty = no appearance term.
    """

    bases: SemanticBases
    reference: Reference
    appearance: Mapping[Site, Tensor] = field(default_factory=dict)


def appearance_vectors(settings: FreeControlSettings, keys: Tensor, s: Tensor) -> Tensor:
    """Appearance vectors v^(k) (B, N_a, C) of keys with coordinates s (eq. 5)."""
    count = min(settings.appearance_components, s.shape[-1])
    weights = energies.appearance_weights(
        s,
        count,
        settings.appearance_gate,
        threshold=settings.appearance_threshold,
        normalised=settings.normalize == "minmax",
    )
    return energies.appearance_vectors(keys, weights)


class FreeControlGuide(Controller):
    """Guides lane "edit" towards its targets' structure and appearance.

    With several targets the energies are summed: each structure energy has the full weight, since each is a mean over
    its own mask, and so has the appearance energy of each target that has vectors to reach. Concepts with disjoint
    masks do not weaken each other; two conditions on the same place pull twice as hard as one.

    Args:
        path: with the sampling grid.
        sites: the tapped modules.
        cost: counts backward rows.
        observer: is told of the coordinates.
    """

    def __init__(
        self,
        path: Path,
        settings: FreeControlSettings,
        targets: Sequence[Target],
        sites: Sequence[str],
        *,
        cost: Cost | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        self.observer = observer
        self.path, self.settings, self.cost = path, settings, cost
        self.targets, self.sites = list(targets), list(sites)
        self.relative = settings.update == "relative"
        self.structure_weight = 1.0 if self.relative else settings.structure_weight or 0.0
        self.appearance_weight = settings.appearance_weight or 0.0
        self._energies_seen: list[tuple[float, Tensor, Tensor]] = []
        self._finite: list[tuple[float, Tensor]] = []
        self._change: Tensor | None = None

    @property
    def trace(self) -> list[dict[str, float]]:
        """Energies of each guided step, means over the batch; to read them is to wait for the device."""
        return [{"timestep": t, "structure": float(s), "appearance": float(a)} for t, s, a in self._energies_seen]

    @property
    def non_finite(self) -> int:
        """Steps whose gradient was not finite, which are told of; to ask is to wait for the device."""
        broken = [time for time, finite in self._finite if not finite]
        for time in broken:
            logger.warning("non-finite gradient at timestep %d: step left unguided", time)
        return len(broken)

    def guided(self, step: Step) -> bool:
        """Whether this step carries a gradient: inside the window, with a strength or weight above zero."""
        if not in_window(self.settings, step, self.path) or ramp(self.settings, step) == 0:
            return False
        return self.settings.structure_strength != 0 and self.structure_weight + self.appearance_weight > 0

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs; inside the window the edit's conditional row runs alone, with a graph up to the last site."""
        self._change = None
        if not self.guided(step):
            return super().predict(step, lanes, denoiser)
        plain = [(n, h) for n, lane in lanes.items() for h in lane.halves if (n, h) != ("edit", "cond")]
        outputs = denoiser.rows(lanes, plain, step.timestep) if plain else {}
        outputs["edit", "cond"], self._change = self._edit_row(step, lanes["edit"], denoiser)
        guided = {name: denoiser.guided(lane, of_lane(outputs, name)) for name, lane in lanes.items()}
        if self.settings.update == "paper":
            guided["edit"] = self._through_noise(step, lanes["edit"], guided["edit"])
        return guided

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """The published code's update and ours: behind the step, so that the clean estimate stays what it is."""
        if self._change is None or self.settings.update == "paper":
            return
        edit = lanes["edit"]
        edit.latents = edit.latents - self._change

    def _edit_row(self, step: Step, edit: Lane, denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        """Output of the edit's conditional row, and what is taken from the latents, or added to the noise."""
        with torch.enable_grad(), frozen(denoiser.network):
            latents = edit.latents.detach().requires_grad_(True)
            probe = Lane(latents, edit.prompt, edit.guidance_scale)
            with tap(denoiser.network, self.sites, cut_grad=True) as seen:
                output = denoiser.rows({"edit": probe}, [("edit", "cond")], step.timestep)["edit", "cond"]
                energy = self._energy(step, denoiser.features(seen.pop_all(), latents))
            (gradient,) = torch.autograd.grad(energy.sum(), latents)
        if self.cost is not None:
            self.cost.add_backward(latents.shape[0])
        finite = torch.isfinite(gradient).all()
        self._finite.append((step.timestep, finite))
        gradient = torch.where(finite, gradient, torch.zeros_like(gradient))
        return output.detach(), self._made(step, gradient, torch.where(finite, energy.detach(), 0))

    def _made(self, step: Step, gradient: Tensor, energy: Tensor) -> Tensor:
        """The change of the latents, or of the noise, from the gradient (B, C, h, w) of energies (B,)."""
        warm = ramp(self.settings, step)
        if self.settings.update == "paper":
            return gradient * warm
        if self.settings.update == "official":
            return self.path.guidance_length(step.timestep).to(gradient) * (gradient * warm)
        length = FULL * self.settings.structure_strength * warm * relative_length(self.path, step.timestep)
        return relative_step(gradient, energy, length)

    def _energy(self, step: Step, features: Mapping[str, Tensor]) -> Tensor:
        """lambda_s g_s + lambda_a g_a, summed over targets, each a mean over the sites; (B,)."""
        parts = [self._energies(target, (step.timestep, site), keys) for target in self.targets
                 for site, keys in features.items()]  # fmt: skip
        g_s, g_a = (torch.stack(each).sum(0) / len(features) for each in zip(*parts, strict=True))
        self._energies_seen.append((step.timestep, g_s.detach().mean(), g_a.detach().mean()))
        return self.structure_weight * g_s + self.appearance_weight * g_a

    def _energies(self, target: Target, site: Site, keys: Tensor) -> tuple[Tensor, Tensor]:
        """g_s and g_a (B,) of one target at one site."""
        settings = self.settings
        s = coordinates(target.bases, settings.normalize, site, keys)
        self.observer.compared(target.reference, site, s)
        g_s = energies.structure_energy(
            s,
            target.reference.coordinates[site].to(s),
            mask=target.reference.masks.get(site[0]),
            background_weight=settings.background_weight,
            background_area=settings.background_area,
            reduction=settings.reduction,
        )
        if site not in target.appearance:
            return g_s, torch.zeros_like(g_s)
        own, wanted = appearance_vectors(settings, keys, s), target.appearance[site]
        g_a = energies.appearance_energy(own, wanted.to(own), reduction=settings.reduction)
        if settings.normalize == "variance":  # then both energies are shares of the features' variance
            g_a = g_a * keys.shape[-1] / target.bases.at(*site, TOLERANCE).variance().to(g_a)
        return g_s, g_a

    def _through_noise(self, step: Step, edit: Lane, output: Tensor) -> Tensor:
        """Equation 7: eps + gradient, inherited by x0; expressed as the model's own prediction type."""
        if self._change is None:
            return output
        a, s = (one.to(edit.latents) for one in self.path.coefficients(step.timestep))
        _, noise = self.path.split(output.to(edit.latents), edit.latents, step.timestep)
        noise = noise + self._change
        return self.path.joined((edit.latents - s * noise) / a, noise, step.timestep)


def relative_length(path: Path, time: float) -> float:
    """`turn` times s s' of the path at unit variance, in latents of the level below: the same sum on any grid."""
    (a, s), (_, below_s) = path.coefficients(time), path.coefficients(path.below(time))
    return path.turn(time) * float(s * below_s / torch.hypot(a, s))


def relative_step(gradient: Tensor, energy: Tensor, length: float) -> Tensor:
    """A step along the gradient, `length` long in deviations of a latent, whatever the gradient's size.

    It is never longer than 2 E / |g|: were the energy E quadratic, its minimum would lie no nearer. Explicit steps that
    go further amplify rounding. Each row of a batch has its own length.

    Args:
        gradient: (B, C, h, w). energy: (B,), >= 0.
    """
    wide = gradient.double() if gradient.dtype == torch.float64 else gradient.float()
    norm = wide.flatten(1).norm(dim=1)
    reach = length * math.sqrt(gradient[0].numel())
    tiny = torch.finfo(norm.dtype).tiny
    far = torch.minimum(torch.full_like(norm, reach), 2 * energy.to(norm) / norm.clamp(min=tiny))
    return (wide * (far / norm.clamp(min=tiny)).view(-1, 1, 1, 1)).to(gradient.dtype)


def ramp(settings: FreeControlSettings, step: Step) -> float:
    """Warm-up, linear from 0 at the first step."""
    steps = round(settings.warmup * step.count)
    return min(1.0, step.index / steps) if steps else 1.0


def in_window(settings: FreeControlSettings, step: Step, path: Path | None) -> bool:
    """Whether a step lies in the guidance window; without a path, a window of levels is that of a flow of shift 3."""
    if settings.window_level is None:
        return step.within(settings.window_start, settings.window_stop)
    share = 1 - step.index / step.count
    level = 3 * share / (1 + 2 * share) if path is None else path.noise_level(step.timestep)
    return step.within(settings.window_start, 1) and level >= settings.window_level - 1e-9


def guided_timesteps(
    timesteps: Sequence[float], settings: FreeControlSettings, path: Path | None = None
) -> list[float]:
    """The timesteps inside the guidance window; `path` as for `in_window`."""
    steps = [Step(i, len(timesteps), t) for i, t in enumerate(timesteps)]
    return [step.timestep for step in steps if in_window(settings, step, path)]
