"""What a guidance picture is compared by: its semantic coordinates, and masks, at every guided level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from freectl.denoising.attention_layers import TEXT
from freectl.denoising.attention_maps import running_masks, word_maps
from freectl.denoising.injection import text_of
from freectl.denoising.inversion import Trajectory
from freectl.denoising.path import time_of
from freectl.denoising.recording import Recording
from freectl.files.cache import content_key
from freectl.models.engine import Engine
from freectl.semantics.analysis import TOLERANCE, Site, passing_at
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


class ReferenceRecorder:
    """Reads a picture's coordinates, and attention maps, level by level.

    Its inversion passes all guided levels but the highest one: read there, they cost nothing. The same forwards are
    made here for what is still missing, one by one, so that it does not matter where a level was read.

    Args:
        source_prompt: what the picture shows.
        guided: times of the levels.
        concept: word of the source prompt whose cross-attention makes masks.
    """

    def __init__(
        self,
        engine: Engine,
        source_prompt: str,
        bases: SemanticBases,
        guided: Sequence[float],
        sites: Sequence[str],
        normalize: Normalize,
        concept: str | None = None,
    ) -> None:
        self.engine, self.source_prompt, self.bases, self.guided = engine, source_prompt, bases, list(guided)
        self.sites, self.normalize = list(sites), normalize
        self.layers = engine.family.concept_layers(engine.network) if concept is not None else []
        self.positions = engine.token_positions(source_prompt, concept) if concept is not None else []
        text = text_of([(engine.encode_prompt([source_prompt]), "cond")]) if self.layers else None
        self.text = {} if text is None else {TEXT: text}
        self._read: dict[float, tuple[Reference, Tensor | None]] = {}

    def key(self, trajectory_key: str) -> str:
        """The cache key of the reference."""
        return content_key(
            what="reference",
            trajectory=trajectory_key,
            bases=content_key(tensors=self.bases.tensors()),
            guided=self.guided,
            sites=self.sites,
            normalize=self.normalize,
            mask_tokens=self.positions,
        )

    def finished(self, trajectory: Trajectory) -> Reference:
        """The reference of all guided levels; those that were not passed are read now."""
        prompt = self.engine.encode_prompt([self.source_prompt])
        self._read.pop(max(trajectory.levels), None)  # no inversion passes the level where it ends
        for time in self.guided:
            if time not in self._read:
                found = passing_at(self.engine.denoiser, trajectory, prompt, [time], self.tapped)
                self.take(time, {site: found[time, site] for site in self.tapped}, trajectory.clean)
        coordinates = {key: value for time in self.guided for key, value in self._read[time][0].coordinates.items()}
        maps = {time: self._read[time][1] for time in self.guided}
        return Reference(coordinates, running_masks(maps) if self.layers else {})  # type: ignore[arg-type]

    @property
    def tapped(self) -> list[str]:
        """The modules that are read."""
        return list(dict.fromkeys([*self.sites, *(site for layer in self.layers for site in layer.asked)]))

    def take(self, time: float, seen: Mapping[str, Tensor], latents: Tensor) -> None:
        """Read a level from what passed the tapped modules, (1, ...), for latents (rows, C, h, w)."""
        engine, size = self.engine, (latents.shape[-2], latents.shape[-1])
        features = engine.denoiser.features({site: seen[site] for site in self.sites}, latents)
        maps = None
        if self.layers:
            maps = word_maps(engine.network, {**seen, **self.text}, self.layers, self.positions, size)
            # on the features' own grid, which may be coarser than the tokens'
            maps = engine.family.read(engine.network, maps[..., None], size)[..., 0]
        coordinates = reference_coordinates(
            {(time, s): value for s, value in features.items()}, self.bases, self.normalize
        )
        self._read[time] = coordinates, maps


def recording(recorders: Sequence[ReferenceRecorder], numbers: Sequence[int]) -> Recording:
    """The engine's denoiser, from which recorders read their pictures as these are inverted together.

    Args:
        recorders: of the same levels, sites and kind of masks. numbers: those of the pictures, in their order.
    """
    first = recorders[numbers[0]]

    def take(time: float, seen: Mapping[str, Tensor], latents: Tensor) -> None:
        for i, number in enumerate(numbers):
            recorders[number].take(time, {site: value[i : i + 1] for site, value in seen.items()}, latents)

    return Recording(first.engine.denoiser, first.tapped, first.guided, take)


def reference(recorder: ReferenceRecorder, trajectory: Trajectory, trajectory_key: str) -> Reference:
    """Semantic coordinates of an inverted picture at the guided levels, and masks of a concept, cached.

    Args:
        recorder: what the inversion passed, if it was not in the cache.
        trajectory_key: what `Engine.invert` returned with the trajectory.
    """
    engine = recorder.engine
    tensors = engine.cached(
        "reference", recorder.key(trajectory_key), lambda: (recorder.finished(trajectory).to_tensors(), {})
    )
    return Reference.from_tensors({name: t.to(engine.device) for name, t in tensors.items()})
