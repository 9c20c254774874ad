"""FreeControl (Mo et al., CVPR 2024, arXiv 2312.07536): training-free spatial control by semantic bases."""

import difflib
from collections.abc import Collection

from freectl.denoising.grad import checkpointed, is_wanted
from freectl.denoising.inverters import READS_LEVELS, SCHEMES
from freectl.denoising.sampler import Lane
from freectl.errors import InputError
from freectl.methods.base import Method, Outcome, Request, denoise
from freectl.methods.freecontrol.guide import FreeControlGuide, guided_timesteps
from freectl.methods.freecontrol.settings import (
    EQUATIONS,
    PRESETS,
    FreeControlSettings,
    check_dial,
    guidance_scale,
    resolved,
)
from freectl.methods.freecontrol.targets import Analyser
from freectl.models.engine import Engine
from freectl.models.families.base import Family
from freectl.semantics import lookup


class FreeControl(Method[FreeControlSettings]):
    """Analysis (bases, inversion, coordinates), then guided synthesis."""

    name = "freecontrol"
    summary = "structure and appearance guidance on semantic bases of self-attention keys"
    paper = "Mo et al., FreeControl, CVPR 2024, arXiv 2312.07536"
    equations = EQUATIONS
    settings = FreeControlSettings
    presets = PRESETS
    needs = ("image", "inversion", "gradient")
    inputs = ("concept", "mask", "appearance_image", "conditions")

    def run(self, engine: Engine, request: Request, settings: FreeControlSettings) -> Outcome:
        """Edit the request's pictures, or make pictures under its conditions; see `FreeControlSettings`.

        Each condition is inverted with its own source prompt and compared in the bases of its own concept, inside its
        own mask; `FreeControlGuide` says how several are weighted.
        """
        sites = sites_of(engine, settings)
        with engine.cost.counting(engine.network):
            with engine.cost.stage("analysis"):
                analyser = Analyser(engine, request, settings, sites)
                start, targets = analyser.analyse()
                analyser.add_appearance(targets, start)
            with engine.cost.stage("synthesis"):
                guide = FreeControlGuide(
                    analyser.path, settings, targets, sites, cost=engine.cost, observer=self.observer
                )
                lanes = {"edit": Lane(start, request.prompt, request.guidance_scale)}
                again = is_wanted(settings.checkpointing, engine.device)
                with checkpointed(engine.network, again):
                    latents = denoise(engine, request, lanes, analyser.path.times, guide)
        warnings = []
        if guide.non_finite:
            warnings.append(f"{guide.non_finite} steps had a non-finite gradient and were left unguided")
        return Outcome(latents, guide.trace, warnings)

    def check(self, settings: FreeControlSettings, given: Collection[str]) -> None:
        """Also refuse a picture or noise without effect, what each condition has of its own, and unknown bases."""
        super().check(settings, given)
        check_dial(settings)
        if settings.start == "noise" and settings.start_noise:
            raise InputError("--set start_noise", f"{settings.start_noise} with start=noise", "0, or start=inverted")
        if settings.bases is not None:
            lookup.check_name(settings.bases, "--set bases")
        if "conditions" in given:
            for name in {"concept", "mask"} & set(given):
                raise InputError(f"--{name}", "given beside conditions", f"the {name} of each condition")
        if "appearance_image" in given and settings.appearance_weight == 0:
            raise InputError("--appearance-weight", "0 with an appearance image", "a weight above 0")

    def resolved(
        self, settings: FreeControlSettings, family: Family, *, appearance_image: bool = False
    ) -> FreeControlSettings:
        """Strength, weights and features where none are given."""
        return resolved(settings, family, appearance_image=appearance_image)

    def guidance_scale(self, settings: FreeControlSettings, family: Family) -> float:
        """Of the family, where it has one for this method."""
        return guidance_scale(settings, family)

    def row_forwards(self, steps: int, settings: FreeControlSettings) -> str:
        """Rows of a first run with cached bases."""
        guided = len(guided_timesteps(list(range(steps)), settings))
        # the sibling runs from the first step on; a warm-up starts with a step of weight 0
        through = len(guided_timesteps(list(range(steps)), settings.model_copy(update={"window_start": 0.0})))
        sibling = 0 if settings.appearance_weight == 0 or not guided else 2 * through
        idle = settings.window_start == 0 and round(settings.warmup * steps) > 0
        inversion = steps if settings.inversion_steps is None else settings.inversion_steps
        # an inversion at the lower level passes all guided levels but the one that it ends at
        last = int(inversion == steps and settings.window_start == 0 and guided > 0)
        read_beside = settings.inversion_at == "lower" and settings.inverter in READS_LEVELS
        reference = last if read_beside else guided
        inversion = SCHEMES[settings.inverter].rows(inversion)
        return (
            f"inversion {inversion} + reference {reference} x executed share + sibling {sibling} "
            f"+ synthesis {2 * steps} (+ {max(0, guided - idle)} row backwards; a repeat has the synthesis alone)"
        )


def sites_of(engine: Engine, settings: FreeControlSettings) -> list[str]:
    """The modules whose outputs are compared: those that the settings name, or the model family's.

    Raises:
        InputError: the network has no module of a name.
    """
    if settings.sites is None:
        return engine.family.structure_sites(engine.network, settings.layers or "all", settings.features or "keys")
    modules, names = dict(engine.network.named_modules()), settings.sites.split("+")
    for name in names:
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3)
            raise InputError("--set sites", f"'{name}', which the network does not have", ", ".join(near) or "a module")
    return names
