"""FreeControl (Mo et al., CVPR 2024, arXiv 2312.07536): training-free spatial control by semantic bases."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from freectl import bases_store
from freectl.analysis import Reference, Site, features_at
from freectl.bases import SemanticBases
from freectl.engine import Engine
from freectl.errors import InputError
from freectl.families import Family
from freectl.methods.base import Method, Outcome, Request, denoise
from freectl.methods.freecontrol_guide import FreeControlGuide
from freectl.methods.freecontrol_settings import EQUATIONS, PRESETS, FreeControlSettings, resolved
from freectl.sampler import Lane, Step

STORED_COMPONENTS = 64
"""Bases are kept with this many components, so that runs with fewer share them."""


class FreeControl(Method[FreeControlSettings]):
    """Analysis (bases, inversion, coordinates), then guided synthesis."""

    name = "freecontrol"
    summary = "structure and appearance guidance on semantic bases of self-attention keys"
    paper = "Mo et al., FreeControl, CVPR 2024, arXiv 2312.07536"
    equations = EQUATIONS
    settings = FreeControlSettings
    presets = PRESETS
    needs = ("image", "inversion", "gradient")
    inputs = ("concept", "mask", "appearance_image")

    def run(self, engine: Engine, request: Request, settings: FreeControlSettings) -> Outcome:
        """Edit the request's pictures; see `FreeControlSettings`."""
        sites = engine.family.sites(engine.unet, settings.layers)
        with engine.cost.counting(engine.unet):
            with engine.cost.stage("analysis"):
                guided = guided_timesteps(engine.timesteps(request.steps), settings)
                bases = self._bases(engine, request, settings, sites, guided)
                timesteps = engine.timesteps(request.steps)
                start, reference = self._analyse(engine, request, settings, bases, timesteps, guided, sites)
            with engine.cost.stage("synthesis"):
                guide = FreeControlGuide(
                    engine.scheduler,
                    settings,
                    bases,
                    reference,
                    sites,
                    cost=engine.cost,
                )
                if request.appearance_image is not None:
                    guide.appearance = self._appearance(engine, request.appearance_image, guide, timesteps, guided)
                latents = self._synthesise(engine, request, settings, guide, timesteps, start)
        warnings = []
        if guide.non_finite:
            warnings.append(f"{guide.non_finite} steps had a non-finite gradient and were left unguided")
        return Outcome(latents, guide.trace, warnings)

    def check(self, settings: FreeControlSettings, given: Collection[str]) -> None:
        """Also refuse an appearance picture that would have no weight."""
        super().check(settings, given)
        if "appearance_image" in given and settings.appearance_weight == 0:
            raise InputError("--appearance-weight", "0 with an appearance image", "a weight above 0")

    def resolved(
        self, settings: FreeControlSettings, family: Family, *, appearance_image: bool = False
    ) -> FreeControlSettings:
        """Weights and component count of the family where none are given."""
        return resolved(settings, family, appearance_image=appearance_image)

    def row_forwards(self, steps: int, settings: FreeControlSettings) -> str:
        """Rows of a first run with cached bases."""
        guided = len(guided_timesteps(list(range(steps)), settings))
        # the sibling runs from the first step on; a warm-up starts with a step of weight 0
        through = len(guided_timesteps(list(range(steps)), settings.model_copy(update={"window_start": 0.0})))
        sibling = 0 if settings.appearance_weight == 0 or not guided else 2 * through
        idle = settings.window_start == 0 and round(settings.warmup * steps) > 0
        return (
            f"inversion {steps} + reference {guided} x executed share + synthesis {2 * steps + sibling} "
            f"(+ {max(0, guided - idle)} row backwards)"
        )

    def _bases(
        self,
        engine: Engine,
        request: Request,
        settings: FreeControlSettings,
        sites: Sequence[str],
        guided: Sequence[int],
    ) -> SemanticBases:
        spec = bases_store.BasesSpec(
            prompts=bases_store.seed_prompts(engine.family.name, request.concept, request.texts[0]),
            seeds=settings.seeds,
            components=max(STORED_COMPONENTS, settings.components or 0),
            features=settings.seed_features,
            stop=bases_store.needed_stop(engine, guided),
            sites=tuple(sites),
        )
        folder = engine.pipe.config.get("_name_or_path")  # where from_pretrained found the model
        bases = bases_store.obtain(engine, spec, shipped=Path(folder) if folder else None)
        entries = {
            key: replace(
                basis.to(engine.device),
                components=basis.components[: settings.components].to(engine.device),
                explained_variance=basis.explained_variance[: settings.components].to(engine.device),
            )
            for key, basis in bases.items()
        }
        return SemanticBases(entries, bases.metadata)

    def _analyse(
        self,
        engine: Engine,
        request: Request,
        settings: FreeControlSettings,
        bases: SemanticBases,
        timesteps: list[int],
        guided: list[int],
        sites: list[str],
    ) -> tuple[Tensor, Reference]:
        """x_T of each picture, and the guidance coordinates."""
        concept = request.concept if request.mask == "attention" else None
        if request.mask == "attention" and concept is None:
            raise InputError("--mask", "attention without a concept", "--concept with a word of the source prompt")
        pairs = list(zip(request.images, request.source_prompts, strict=True))
        found: dict[tuple[bytes, str], tuple[Tensor, Reference]] = {}
        for image, source in pairs:
            if (image.tobytes(), source) not in found:
                trajectory, key = engine.invert(image, source, timesteps)
                reference = engine.reference(trajectory, key, source, bases, guided, sites, settings.normalize, concept)
                found[image.tobytes(), source] = (trajectory.start, reference)
        each = [found[image.tobytes(), source] for image, source in pairs]
        coordinates = {site: torch.cat([r.coordinates[site] for _, r in each]) for site in each[0][1].coordinates}
        if request.latents is not None:
            start = request.latents
        elif settings.start == "inverted":
            start = torch.cat([x for x, _ in each])
        else:
            start = engine.noise(request.size, request.generators)
        masks = {t: torch.cat([r.masks[t] for _, r in each]) for t in each[0][1].masks}
        if isinstance(request.mask, Image.Image):
            given = self._token_mask(engine, request, next(iter(coordinates.values())).shape[1])
            masks = dict.fromkeys(guided, given)
        return start, Reference(coordinates, masks)

    def _appearance(
        self, engine: Engine, image: Image.Image, guide: FreeControlGuide, timesteps: list[int], guided: list[int]
    ) -> dict[Site, Tensor]:
        """Appearance vectors of a picture at the guided timesteps, in place of a sibling's."""
        trajectory, _ = engine.invert(image, "", timesteps)
        features = features_at(engine.denoiser, trajectory, engine.encode_prompt([""]), guided, guide.sites)
        return {(t, site): guide.appearance_vectors(t, site, keys) for (t, site), keys in features.items()}

    def _token_mask(self, engine: Engine, request: Request, tokens: int) -> Tensor:
        """The picture's mask on the token grid, (1, tokens)."""
        width, height = request.size
        rows = round((tokens * height / width) ** 0.5)
        picture = request.mask.convert("L")  # type: ignore[union-attr]
        small = picture.resize((tokens // rows, rows), Image.Resampling.BOX)
        mask = torch.tensor(list(small.tobytes()), dtype=torch.float32, device=engine.device)[None] / 255
        if not (mask > 0.5).any():
            raise InputError("--mask", "no token of the model's feature grid more than half white", "a larger area")
        return (mask > 0.5).float()

    def _synthesise(
        self,
        engine: Engine,
        request: Request,
        settings: FreeControlSettings,
        guide: FreeControlGuide,
        timesteps: list[int],
        start: Tensor,
    ) -> Tensor:
        lanes = {"edit": Lane(start, request.prompt, request.guidance_scale)}
        wanted = guide.appearance_weight > 0 and not guide.appearance
        if wanted and guided_timesteps(timesteps, settings):
            lanes["sibling"] = Lane(start.clone(), request.prompt, request.guidance_scale)
        return denoise(engine, request, lanes, timesteps, guide)


def guided_timesteps(timesteps: Sequence[int], settings: FreeControlSettings) -> list[int]:
    """The timesteps inside the guidance window."""
    steps = [Step(i, len(timesteps), int(t)) for i, t in enumerate(timesteps)]
    return [s.timestep for s in steps if s.within(settings.window_start, settings.window_stop)]
