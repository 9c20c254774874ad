"""Analysis (arXiv 2312.07536, section 3.1): features and coordinates of the seed pictures and the guidance picture."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from freectl.denoising.inversion import Trajectory, invert
from freectl.denoising.path import Path, number
from freectl.denoising.sampler import Controller, Denoiser, Lane, Prompt, Step, sample
from freectl.denoising.taps import tap
from freectl.semantics.bases import Basis, GramAccumulator, SemanticBases

BATCH_ROWS = 8
TOLERANCE = 21
"""Largest distance from a timestep to its basis: a gap of the 50-step analysis grid, since other grids begin higher."""
Site = tuple[float, str]
"""(time of a level, module name)."""


class FeatureRecorder(Controller):
    """Samples plainly and streams the conditional rows' keys of the seed lane into Gram matrices."""

    def __init__(self, sites: Sequence[str], grams: dict[Site, GramAccumulator], timesteps: frozenset[float]) -> None:
        self.sites, self.grams, self.timesteps = sites, grams, timesteps

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided output; features of the last B rows, which are the conditional ones."""
        if step.timestep not in self.timesteps:
            return super().predict(step, lanes, denoiser)
        latents = next(iter(lanes.values())).latents
        batch = latents.shape[0]
        with tap(denoiser.network, self.sites) as seen:
            outputs = super().predict(step, lanes, denoiser)
            for site, features in denoiser.features(seen.pop_all(), latents).items():
                add_features(self.grams, (step.timestep, site), features[-batch:])
        return outputs


def add_features(grams: dict[Site, GramAccumulator], site: Site, features: Tensor) -> None:
    """Stream features (B, tokens, C) into the site's Gram matrix."""
    grams.setdefault(site, GramAccumulator()).add(features.flatten(0, -2))


def seed_features(
    denoiser: Denoiser,
    path: Path,
    lane: Lane,
    timesteps: Sequence[float],
    guided: Sequence[float],
    sites: Sequence[str],
    grams: dict[Site, GramAccumulator],
    *,
    by_inversion: bool,
    on_step: Callable[[], None] | None = None,
) -> None:
    """Stream the keys of one batch of seed pictures at the guided timesteps.

    Recorded while sampling, which then stops after the last guided timestep (the published code), or by DDIM inversion
    of the finished pictures (the paper, section 3.1).

    Args:
        path: with the sampling grid. lane: noise latents (B, C, h, w) and the seed prompt.
        timesteps: the sampling grid, descending. guided: those whose features are wanted.
        grams: filled in place.
    """
    wanted = frozenset(guided)

    def report(step: Step, lanes: dict[str, Lane]) -> bool:
        if on_step is not None:
            on_step()
        return not by_inversion and step.timestep <= min(wanted)

    controller = Controller() if by_inversion else FeatureRecorder(sites, grams, wanted)
    sample(denoiser, path, {"seed": lane}, timesteps, controller, on_step=report)
    if by_inversion:
        only_cond = Prompt(lane.prompt.cond, added=lane.prompt.added)
        trajectory = invert(denoiser, path, lane.latents, only_cond, timesteps, lambda _: on_step and on_step())
        for timestep in guided:
            for site, features in features_at(denoiser, trajectory, only_cond, [timestep], sites).items():
                add_features(grams, site, features)


def solve(grams: Mapping[Site, GramAccumulator], components: int, metadata: dict) -> SemanticBases:
    """Semantic bases of all sites; fewer components where a site has fewer channels."""
    bases: dict[Site, Basis] = {}
    for site, gram in grams.items():
        bases[site] = gram.solve(min(components, gram.channels, gram.count - 1))
    return SemanticBases(bases, metadata)


def features_at(
    denoiser: Denoiser, trajectory: Trajectory, prompt: Prompt, timesteps: Sequence[float], sites: Sequence[str]
) -> dict[Site, Tensor]:
    """Keys (B, tokens, C) of an inverted picture at structure sites, in forwards that stop after the last one."""
    found = passing_at(denoiser, trajectory, prompt, timesteps, sites)
    return {key: denoiser.features({key[1]: value}, trajectory.clean)[key[1]] for key, value in found.items()}


@torch.no_grad()
def passing_at(
    denoiser: Denoiser, trajectory: Trajectory, prompt: Prompt, timesteps: Sequence[float], sites: Sequence[str]
) -> dict[Site, Tensor]:
    """What passes sites (B, ...) at levels of an inverted picture, in forwards that stop after the last site.

    Several timesteps share a forward, up to `BATCH_ROWS` rows.
    """
    found: dict[Site, Tensor] = {}
    batch = trajectory.clean.shape[0]
    per_call = max(1, BATCH_ROWS // batch)
    for first in range(0, len(timesteps), per_call):
        group = [number(t) for t in timesteps[first : first + per_call]]
        latents = torch.cat([trajectory.levels[t] for t in group])
        times = torch.tensor(group, device=latents.device).repeat_interleave(batch)
        embeds = prompt.cond.repeat(len(group), 1, 1)
        added = {k: v.repeat(len(group), *[1] * (v.dim() - 1)) for k, v in prompt.added.get("cond", {}).items()}
        with tap(denoiser.network, sites, stop_after=True) as seen:
            denoiser.forward(latents, times, embeds, added or None)
        for site, value in seen.pop_all().items():
            for timestep, part in zip(group, value.split(batch), strict=True):
                found[timestep, site] = part
    return found
