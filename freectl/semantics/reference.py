"""What a guidance picture is compared by: its semantic coordinates, and masks, at every guided level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from freectl.denoising.attention_maps import cross_attention_maps, running_masks
from freectl.denoising.inversion import Trajectory
from freectl.denoising.path import time_of
from freectl.files.cache import content_key
from freectl.models.engine import Engine
from freectl.semantics.analysis import TOLERANCE, Site, features_at
from freectl.semantics.bases import SemanticBases
from freectl.semantics.energies import Normalize, normalise_coordinates

MASK = "mask"


@dataclass(frozen=True)
class Reference:
    """What the guidance picture is compared by.

    Attributes:
        coordinates: (timestep, site) -> semantic coordinates (B, tokens, N), normalised.
        masks: timestep -> (B, tokens) of 0 and 1; empty = the whole picture.
    """

    coordinates: dict[Site, Tensor]
    masks: dict[float, Tensor] = field(default_factory=dict)

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names for the cache."""
        masks = {f"{timestep}/{MASK}": value for timestep, value in self.masks.items()}
        return masks | {f"{timestep}/{site}": value for (timestep, site), value in self.coordinates.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Reference":
        """Inverse of `to_tensors`."""
        named = [(time_of(name.split("/")[0]), name.split("/")[1], value) for name, value in tensors.items()]
        coordinates = {(timestep, site): value for timestep, site, value in named if site != MASK}
        return cls(coordinates, {timestep: value for timestep, site, value in named if site == MASK})


def coordinates(bases: SemanticBases, normalize: Normalize, site: Site, features: Tensor) -> Tensor:
    """Semantic coordinates (B, tokens, N) of features (B, tokens, C), S = (F - mu) B^T, normalised."""
    basis = bases.at(*site, TOLERANCE)
    return normalise_coordinates(basis.project(features), normalize, basis.variance())


def reference_coordinates(features: Mapping[Site, Tensor], bases: SemanticBases, normalize: Normalize) -> Reference:
    """S_t^g = (F_t^g - mu_t) B_t^T of every site (section 3.1), normalised as the settings say."""
    return Reference({site: coordinates(bases, normalize, site, value) for site, value in features.items()})


def reference(
    engine: Engine,
    trajectory: Trajectory,
    trajectory_key: str,
    source_prompt: str,
    bases: SemanticBases,
    guided: Sequence[float],
    sites: Sequence[str],
    normalize: Normalize,
    concept: str | None = None,
) -> Reference:
    """Semantic coordinates of an inverted picture at the guided levels, cached.

    With a `concept`, a word of the source prompt, also its cross-attention masks, from the same forwards.

    Args:
        trajectory_key: what `Engine.invert` returned with the trajectory.
    """
    pairs = engine.family.concept_sites(engine.network) if concept is not None else []
    positions = engine.token_positions(source_prompt, concept) if concept is not None else []
    key = content_key(
        what="reference",
        trajectory=trajectory_key,
        bases=content_key(tensors=bases.tensors()),
        guided=list(guided),
        sites=list(sites),
        normalize=normalize,
        mask_tokens=positions,
    )

    def build() -> tuple[dict[str, Tensor], dict]:
        prompt = engine.encode_prompt([source_prompt])
        tapped = [*sites, *(name for pair in pairs for name in pair)]
        features = features_at(engine.denoiser, trajectory, prompt, guided, tapped)
        keys = {(t, site): value for (t, site), value in features.items() if site in sites}
        made = reference_coordinates(keys, bases, normalize)
        if pairs:
            by_time = {t: {site: features[t, site] for site in tapped} for t in guided}
            maps = {t: cross_attention_maps(engine.network, by_time[t], pairs, positions) for t in guided}
            made.masks.update(running_masks(maps))
        return made.to_tensors(), {}

    tensors = engine.cached("reference", key, build)
    return Reference.from_tensors({name: t.to(engine.device) for name, t in tensors.items()})
