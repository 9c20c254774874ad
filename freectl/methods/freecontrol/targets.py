"""FreeControl's analysis stage (arXiv 2312.07536, section 3.1): from pictures and words to what the guide aims at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.denoising import attention_maps
from freectl.denoising.inversion import Trajectory
from freectl.denoising.inverters import READS_LEVELS
from freectl.denoising.path import time_of
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step, sample
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import content_key
from freectl.methods.base import Request, finer_grid, progress_reporter
from freectl.methods.freecontrol.guide import Target, appearance_vectors, guided_timesteps, ramp
from freectl.methods.freecontrol.settings import FreeControlSettings
from freectl.models.engine import Engine
from freectl.models.inverting import Inverter, Pair
from freectl.semantics import lookup, store
from freectl.semantics.analysis import Site, features_at
from freectl.semantics.bases import SemanticBases
from freectl.semantics.reference import Reference, ReferenceRecorder, coordinates, recording
from freectl.semantics.reference import reference as make_reference

STORED_COMPONENTS = 64
"""Bases are kept with this many components, so that runs with fewer share them."""
Mask = Image.Image | str | None


@dataclass(frozen=True)
class Analysed:
    """A guidance picture: its inverted trajectory on the sampling grid, its bases and its reference, batch 1."""

    trajectory: Trajectory
    bases: SemanticBases
    reference: Reference


class Analyser:
    """Makes the targets of one run; each picture is inverted once for each of its source prompts.

    Args:
        sites: the tapped `to_k` modules.
    """

    def __init__(self, engine: Engine, request: Request, settings: FreeControlSettings, sites: Sequence[str]) -> None:
        self.engine, self.request, self.settings, self.sites = engine, request, settings, list(sites)
        self.fine = finer_grid(engine, request.steps, settings.inversion_steps)
        self.path = engine.path(request.steps)
        self.guided = guided_timesteps(self.path.times, settings, self.path)
        self._bases: dict[str | None, SemanticBases] = {}
        self._inverted: dict[tuple[bytes, str], tuple[Trajectory, str]] = {}

    def analyse(self) -> tuple[Tensor, list[Target]]:
        """x_T (B, C, h, w), and one target for all input pictures or one a condition, without appearance vectors.

        Raises:
            InputError: a mask that cannot be made, or `start` asks for what is not there.
        """
        request = self.request
        if not request.conditions:
            pairs = list(zip(request.images, request.source_prompts, strict=True))
            for _, source in pairs:
                self._check_mask(request.mask, request.concept, source)
            each = self.analysed(pairs, request.concept, request.mask)
            return self._start([one.trajectory for one in each]), [Target(each[0].bases, stacked(each))]
        for one in request.conditions:
            self._check_mask(one.mask, one.concept, one.source_prompt)
        each = [self.analysed([(c.image, c.source_prompt)], c.concept, c.mask)[0] for c in request.conditions]
        start = self._start([one.trajectory for one in each], len(request.texts))
        return start, [Target(one.bases, one.reference) for one in each]

    def add_appearance(self, targets: Sequence[Target], start: Tensor) -> None:
        """Fill in the appearance vectors of the targets, once for those that share their bases.

        They are the appearance picture's, or else those of the sibling: same noise, same prompt, no guidance. Both are
        kept in the cache, so that a repeat with other weights or conditions has no rows for them.
        """
        steps = [Step(i, len(self.path.times), t) for i, t in enumerate(self.path.times)]
        wanted = [step.timestep for step in steps if step.timestep in self.guided and ramp(self.settings, step) > 0]
        carriers = list({id(target.bases): target for target in reversed(targets)}.values())[::-1]
        if not wanted or not self.settings.appearance_weight or self.settings.structure_strength == 0:
            return
        ingredients, build = self._picture(wanted) if self.request.appearance_image else self._sibling(wanted, start)
        settings, names = self.settings, ("normalize", "appearance_components", "appearance_gate")
        key = content_key(
            bases=[content_key(tensors=target.bases.tensors()) for target in carriers],
            sites=self.sites,
            wanted=wanted,
            settings=settings.model_dump(include={*names, "appearance_threshold"}),
            **ingredients,
        )

        def flat() -> tuple[dict[str, Tensor], dict[str, Any]]:
            found: dict[str, Tensor] = {}
            for (timestep, site), keys in build().items():
                for i, target in enumerate(carriers):
                    s = coordinates(target.bases, settings.normalize, (timestep, site), keys)
                    found[f"{i}/{timestep}/{site}"] = appearance_vectors(settings, keys, s)
            return found, {}

        for name, vectors in self.engine.cached("appearance", key, flat).items():
            index, timestep, site = name.split("/")
            target = carriers[int(index)]
            target.appearance = {**target.appearance, (time_of(timestep), site): vectors.to(self.engine.device)}

    def _picture(self, wanted: Sequence[float]) -> tuple[dict[str, Any], Any]:
        image: Any = self.request.appearance_image
        self._invert([(image, "")])
        trajectory, key = self._inverted[image.tobytes(), ""]
        prompt = self.engine.encode_prompt([""])

        def build() -> Mapping[Site, Tensor]:
            return features_at(self.engine.denoiser, trajectory, prompt, wanted, self.sites)

        return {"what": "appearance picture", "trajectory": key}, build

    def _sibling(self, wanted: Sequence[float], start: Tensor) -> tuple[dict[str, Any], Any]:
        request, engine = self.request, self.engine
        prompt, eta = request.prompt, request.eta
        added = {half: dict(values) for half, values in prompt.added.items()}
        ingredients = {
            "what": "sibling",
            "model": engine.model_key(),
            "start": start,
            "prompt": [prompt.cond, prompt.uncond, added],
            "guidance_scale": float(request.guidance_scale),
            "timesteps": list(self.path.times),
            "noise": [float(eta), *(one.get_state() for one in request.generators)] if eta > 0 else [],
        }

        def build() -> Mapping[Site, Tensor]:
            # the edit will draw the same noise
            generators = [torch.Generator(one.device).set_state(one.get_state()) for one in request.generators]
            recorder = KeyRecorder(self.sites, wanted)
            lanes = {"sibling": Lane(start.clone(), prompt, request.guidance_scale)}
            through = self.path.times.index(min(wanted)) + 1
            with engine.progress(through, "sibling") as bar:
                sample(
                    engine.denoiser,
                    self.path,
                    lanes,
                    self.path.times[:through],
                    recorder,
                    eta=eta,
                    generators=generators,
                    on_step=progress_reporter(bar, None),
                )
            return recorder.found

        return ingredients, build

    def _check_mask(self, mask: Mask, concept: str | None, source: str) -> None:
        if isinstance(mask, str):
            if mask != "attention":
                raise InputError("--mask", f"'{mask}'", "attention, a picture, or none")
            if not self.engine.family.concept_layers(self.engine.network):
                found = f"attention on a {self.engine.family.name} model, whose attention is not read for words"
                raise InputError("--mask", found, "a picture, or none")
            if not concept:
                raise InputError("--mask", "attention without a concept", "--concept with a word of the source prompt")
            self.engine.token_positions(source, concept)

    def analysed(self, pairs: Sequence[Pair], concept: str | None, mask: Mask) -> list[Analysed]:
        """Guidance pictures in the bases of `concept`.

        Args:
            pairs: each at the working size, and what it shows; equal ones are analysed once.
            mask: picture of the working size, "attention" or None.
        """
        engine, normalize = self.engine, self.settings.normalize
        bases, word = self._bases_of(concept), concept if mask == "attention" else None
        once = {(image.tobytes(), source): (image, source) for image, source in pairs}
        recorders = {
            pair: ReferenceRecorder(engine, pair[1], bases, self.guided, self.sites, normalize, word) for pair in once
        }
        self._invert(list(once.values()), recorders)
        made: dict[tuple[bytes, str], Analysed] = {}
        for pair, recorder in recorders.items():
            trajectory, key = self._inverted[pair]
            reference = make_reference(recorder, trajectory, key)
            if isinstance(mask, Image.Image) and reference.coordinates:
                tokens = next(iter(reference.coordinates.values())).shape[1]
                given = attention_maps.picture_mask(mask, tokens, self.request.size).to(engine.device)
                reference = replace(reference, masks=dict.fromkeys(self.guided, given))
            made[pair] = Analysed(trajectory, bases, reference)
        return [made[image.tobytes(), source] for image, source in pairs]

    def _invert(
        self, pairs: Sequence[Pair], recorders: Mapping[tuple[bytes, str], ReferenceRecorder] | None = None
    ) -> None:
        """Find the trajectories of different pictures on the sampling grid, and the cache keys of their inversions.

        Args:
            recorders: read the levels that are passed, if the network is told the level that it sees.
        """
        new = {(image.tobytes(), source): (image, source) for image, source in pairs}
        new = {pair: given for pair, given in new.items() if pair not in self._inverted}
        at = self.settings.inversion_at
        reading = at == "lower" and self.settings.inverter in READS_LEVELS
        record = partial(recording, [recorders[pair] for pair in new]) if recorders is not None and reading else None
        found = Inverter(self.engine, self.fine, at, inverter=self.settings.inverter).each(list(new.values()), record)
        for pair, (whole, key) in zip(new, found, strict=True):
            levels = {time: whole.levels[time] for time in self.path.times}
            self._inverted[pair] = Trajectory(whole.clean, levels), key

    def _start(self, trajectories: Sequence[Trajectory], copies: int = 1) -> Tensor:
        request, engine = self.request, self.engine
        if request.latents is not None:
            return request.latents
        if self.settings.start == "noise" or (self.settings.start == "auto" and request.conditions):
            return engine.noise(request.size, request.generators)
        if request.conditions:
            if any(one is not trajectories[0] for one in trajectories):
                raise InputError("--set start", "inverted with several condition pictures", "noise, or one condition")
            return self._mixed(trajectories[0].start.repeat(copies, 1, 1, 1))
        return self._mixed(torch.cat([one.start for one in trajectories]))

    def _mixed(self, inverted: Tensor) -> Tensor:
        """Inverted latents with a share of fresh noise; the variance stays what it is."""
        share = self.settings.start_noise
        if share == 0:
            return inverted
        return self.path.refreshed(inverted, self.engine.noise(self.request.size, self.request.generators), share)

    def _bases_of(self, concept: str | None) -> SemanticBases:
        name = concept if self.settings.bases is None else None  # named bases serve every concept
        if name not in self._bases:
            self._bases[name] = self._obtain(concept)
        return self._bases[name]

    def _found(self, concept: str | None) -> SemanticBases:
        """The bases that the settings name, or else the concept's own."""
        engine, settings, count = self.engine, self.settings, self.settings.components
        if settings.bases is not None:
            bases = lookup.load(settings.bases, "--set bases")
            lookup.check_usable(bases, engine, self.sites, self.guided, count, "--set bases")
            engine.cost.cached["bases"] = True
            return bases
        spec = store.BasesSpec(
            prompts=store.seed_prompts(engine.family.words, concept, self.request.texts[0]),
            seeds=settings.seeds,
            components=max(STORED_COMPONENTS, count),
            features=settings.seed_features,
            stop=store.needed_stop(engine, self.guided, settings.seed_steps),
            sites=tuple(self.sites),
            steps=settings.seed_steps,
        )
        folder = engine.pipe.config.get("_name_or_path")  # where from_pretrained found the model
        return store.obtain(engine, spec, shipped=Path(folder) if folder else None)

    def _obtain(self, concept: str | None) -> SemanticBases:
        engine, count = self.engine, self.settings.components
        bases = self._found(concept)
        entries = {
            key: replace(
                basis.to(engine.device),
                components=basis.components[:count].to(engine.device),
                explained_variance=basis.explained_variance[:count].to(engine.device),
            )
            for key, basis in bases.items()
        }
        return SemanticBases(entries, bases.metadata)


def stacked(each: Sequence[Analysed]) -> Reference:
    """The references of B pictures as one of batch B."""
    first = each[0].reference
    return Reference(
        {site: torch.cat([one.reference.coordinates[site] for one in each]) for site in first.coordinates},
        {timestep: torch.cat([one.reference.masks[timestep] for one in each]) for timestep in first.masks},
    )


class KeyRecorder(Controller):
    """Samples plainly and keeps the conditional rows' keys of its one lane at the wanted timesteps."""

    def __init__(self, sites: Sequence[str], wanted: Sequence[float]) -> None:
        self.sites, self.wanted = sites, frozenset(wanted)
        self.found: dict[Site, Tensor] = {}

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided output; the conditional rows are the last B."""
        if step.timestep not in self.wanted:
            return super().predict(step, lanes, denoiser)
        latents = next(iter(lanes.values())).latents
        batch = latents.shape[0]
        with tap(denoiser.network, self.sites) as seen:
            outputs = super().predict(step, lanes, denoiser)
            for site, keys in denoiser.features(seen.pop_all(), latents).items():
                self.found[step.timestep, site] = keys[-batch:]
        return outputs
