"""FreeControl's guided step (arXiv 2312.07536, section 3.2), as a controller of the denoising loop."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from freectl import energies
from freectl.analysis import TOLERANCE, Reference, Site
from freectl.bases import SemanticBases
from freectl.cost import Cost
from freectl.inversion import alpha_bar, clean_and_noise, previous_timestep
from freectl.methods.freecontrol_settings import FreeControlSettings
from freectl.sampler import Controller, Denoiser, Lane, RowKey, Step
from freectl.taps import tap

REFERENCE_STEPS = 200
"""The published step count, to which "invariant" weights refer."""

logger = logging.getLogger(__name__)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters without gradient inside, as before outside: autograd then saves nothing for weight gradients."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class FreeControlGuide(Controller):
    """Guides lane "edit" towards the reference's structure and, with a lane "sibling", its sibling's appearance.

    Args:
        scheduler: the sampling `DDIMScheduler`.
        bases: semantic bases of the sites.
        reference: normalised coordinates of the guidance picture at the guided timesteps.
        sites: the tapped `to_k` modules.
        appearance: (timestep, site) -> appearance vectors to reach instead of a sibling's.
        cost: counts backward rows.
    """

    def __init__(
        self,
        scheduler: Any,
        settings: FreeControlSettings,
        bases: SemanticBases,
        reference: Reference,
        sites: list[str],
        *,
        appearance: Mapping[Site, Tensor] | None = None,
        cost: Cost | None = None,
    ) -> None:
        self.scheduler, self.settings, self.cost = scheduler, settings, cost
        self.bases, self.reference, self.sites = bases, reference, sites
        self.appearance = dict(appearance or {})
        self.structure_weight = settings.structure_weight or 0.0
        self.appearance_weight = settings.appearance_weight or 0.0
        self.trace: list[dict[str, float]] = []
        self.non_finite = 0
        self._gradient: Tensor | None = None
        self._noise: Tensor | None = None

    def guided(self, step: Step) -> bool:
        """Whether this step carries a gradient: inside the window, with a weight above zero."""
        inside = step.within(self.settings.window_start, self.settings.window_stop)
        return inside and self.structure_weight + self.appearance_weight > 0 and self.ramp(step) > 0

    def ramp(self, step: Step) -> float:
        """Warm-up (linear from 0 at the first step) times the factor that makes weights independent of step count."""
        steps = round(self.settings.warmup * step.count)
        warm = min(1.0, step.index / steps) if steps else 1.0
        return warm * (REFERENCE_STEPS / step.count if self.settings.step_scaling == "invariant" else 1.0)

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """The sibling is dropped as soon as no later step compares with it."""
        after = step.index >= self.settings.window_stop * step.count - 1e-9
        return tuple(name for name in lanes if not (name == "sibling" and after))

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs; inside the window the edit's conditional row runs alone, with a graph up to the last site."""
        self._gradient = None
        if not self.guided(step):
            return super().predict(step, lanes, denoiser)
        plain: list[RowKey] = [(n, h) for n, lane in lanes.items() for h in lane.halves if (n, h) != ("edit", "cond")]
        # The sibling's conditional row goes last so that its features are the last B rows.
        plain.sort(key=lambda key: key == ("sibling", "cond"))
        vectors = {site: v for (timestep, site), v in self.appearance.items() if timestep == step.timestep}
        outputs: dict[RowKey, Tensor] = {}
        if plain:
            with tap(denoiser.unet, self.sites if "sibling" in lanes else ()) as seen:
                outputs = denoiser.rows(lanes, plain, step.timestep)
                batch = lanes["edit"].latents.shape[0]
                for site, features in seen.pop_all().items():
                    vectors[site] = self.appearance_vectors(step.timestep, site, features[-batch:])
        outputs["edit", "cond"], self._gradient = self._edit_row(step, lanes, denoiser, vectors)
        guided = {n: lane.combine({h: outputs[n, h] for h in lane.halves}) for n, lane in lanes.items()}
        if self.settings.update == "paper":
            guided["edit"] = self._through_noise(step, lanes["edit"], guided["edit"])
        return guided

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """The sibling's noise is the edit's."""
        if name == "edit" or self._noise is None:
            self._noise = super().noise(step, name, lane, generators)
        return self._noise

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """The published code's update: x_{t-1} -= sqrt(1 - abar_t) sqrt(1 - abar_{t-1}) grad, x0 untouched."""
        if self._gradient is None or self.settings.update == "paper":
            return
        here = 1 - alpha_bar(self.scheduler, step.timestep)
        before = 1 - alpha_bar(self.scheduler, previous_timestep(self.scheduler, step.timestep))
        edit = lanes["edit"]
        edit.latents = edit.latents - (here.sqrt() * before.sqrt()).to(edit.latents) * self._gradient

    def _edit_row(
        self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser, vectors: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Output of the edit's conditional row, and the weighted energies' gradient on its latents."""
        edit = lanes["edit"]
        with torch.enable_grad(), frozen(denoiser.unet):
            latents = edit.latents.detach().requires_grad_(True)
            probe = Lane(latents, edit.prompt, edit.guidance_scale)
            with tap(denoiser.unet, self.sites, cut_grad=True) as seen:
                output = denoiser.rows({"edit": probe}, [("edit", "cond")], step.timestep)["edit", "cond"]
                energy = self._energy(step, seen.pop_all(), vectors)
            (gradient,) = torch.autograd.grad(energy.sum(), latents)
        if self.cost is not None:
            self.cost.add_backward(latents.shape[0])
        if not torch.isfinite(gradient).all():
            self.non_finite += 1
            logger.warning("non-finite gradient at timestep %d: step left unguided", step.timestep)
            gradient = torch.zeros_like(gradient)
        return output.detach(), gradient * self.ramp(step)

    def _energy(self, step: Step, features: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> Tensor:
        """lambda_s g_s + lambda_a g_a, each a mean over the sites; (B,)."""
        settings = self.settings
        structure, appearance = [], []
        for site, keys in features.items():
            coordinates = self._coordinates(step.timestep, site, keys)
            structure.append(
                energies.structure_energy(
                    coordinates,
                    self.reference.coordinates[step.timestep, site].to(coordinates),
                    mask=self.reference.masks.get(step.timestep),
                    background_weight=settings.background_weight,
                    background_area=settings.background_area,
                    reduction=settings.reduction,
                )
            )
            if site in vectors:
                own = self.appearance_vectors(step.timestep, site, keys, coordinates)
                appearance.append(energies.appearance_energy(own, vectors[site], reduction=settings.reduction))
        g_s = torch.stack(structure).mean(0)
        g_a = torch.stack(appearance).mean(0) if appearance else torch.zeros_like(g_s)
        self.trace.append(
            {
                "timestep": step.timestep,
                "structure": float(g_s.detach().mean()),
                "appearance": float(g_a.detach().mean()),
            }
        )
        return self.structure_weight * g_s + self.appearance_weight * g_a

    def _coordinates(self, timestep: int, site: str, keys: Tensor) -> Tensor:
        basis = self.bases.at(timestep, site, TOLERANCE)
        return energies.normalise_coordinates(basis.project(keys), self.settings.normalize)

    def appearance_vectors(self, timestep: int, site: str, keys: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """Appearance vectors v^(k) (B, N_a, C) of the keys (eq. 5)."""
        if coordinates is None:
            coordinates = self._coordinates(timestep, site, keys)
        count = min(self.settings.appearance_components, coordinates.shape[-1])
        weights = energies.appearance_weights(
            coordinates, count, self.settings.appearance_gate, threshold=self.settings.appearance_threshold
        )
        return energies.appearance_vectors(keys, weights)

    def _through_noise(self, step: Step, edit: Lane, output: Tensor) -> Tensor:
        """Equation 7: eps + gradient, inherited by x0; expressed as the model's own prediction type."""
        if self._gradient is None:
            return output
        kind = self.scheduler.config.prediction_type
        abar = alpha_bar(self.scheduler, step.timestep)
        a, s = abar.sqrt().to(edit.latents), (1 - abar).sqrt().to(edit.latents)
        _, noise = clean_and_noise(kind, output.to(edit.latents), edit.latents, abar)
        noise = noise + self._gradient
        clean = (edit.latents - s * noise) / a
        return {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * clean}[kind]
