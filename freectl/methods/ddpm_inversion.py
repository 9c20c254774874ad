"""Edit-friendly DDPM inversion (Huberman-Spiegelglas et al., CVPR 2024, arXiv 2304.06140): the input as noise maps."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from freectl.denoising.injection import EDIT, SOURCE
from freectl.denoising.inversion import Trajectory
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Lane, Step, sample
from freectl.files.cache import content_key
from freectl.methods.base import Method, Outcome, Request, denoise, progress_reporter
from freectl.methods.setting import setting
from freectl.models.engine import Engine


class DDPMInversionSettings(BaseModel):
    """More skip and less guidance keep more of the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    skip: float = setting(
        0.36,
        "T_skip: the noisiest steps left out; 1 returns the input",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 4: 36 of 100, useful 0 to 40",
    )
    source_guidance: float = setting(
        3.5,
        "guidance scale of the inversion, with the source prompt",
        ge=0,
        le=100,
        unit="factor",
        source="section 4",
    )
    last_noise: Literal["kept", "zero"] = setting(
        "kept",
        "noise map of the last step: kept reconstructs exactly",
        unit="choice",
        source="zero in its code; kept is ours",
    )


class DDPMInversion(Method[DDPMInversionSettings]):
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e_t with independent e_t, z_t = (x_{t-1} - mu_t(x_t)) / sigma_t.

    Sampling with the maps z_t in place of noise gives the input back at the source prompt and its guidance, and an
    edit at another prompt. Published for Stable Diffusion with 100 steps, guidance 15 (7 to 18) and skip 0.36 (0 to
    0.4). The maps depend on the seed.
    """

    name = "ddpm-inversion"
    summary = "sample with noise maps that reproduce the input, under the new prompt"
    paper = "Huberman-Spiegelglas et al., An Edit Friendly DDPM Noise Space, CVPR 2024, arXiv 2304.06140"
    equations = """
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e_t,  e_t independent for every t
z_t = (x_{t-1} - mu_t(x_t; source, s_src)) / sigma_t,  then x_{t-1} <- mu_t + sigma_t z_t
sigma_t^2 = (1 - abar_{t-1}) / (1 - abar_t) (1 - abar_t / abar_{t-1})
edit: from x_{T - skip},  x_{t-1} = mu_t(x_t; prompt, s) + sigma_t z_t
"""
    settings = DDPMInversionSettings
    presets = {"default": {}, "published": {"last_noise": "zero"}}  # noqa: RUF012
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: DDPMInversionSettings) -> Outcome:
        """Edit the request's pictures; see `DDPMInversionSettings`."""
        with engine.cost.counting(engine.network):
            with engine.cost.stage("analysis"):
                path = engine.path(request.steps)
                grid = path.times
                kept = kept_timesteps(grid, settings.skip)
                clean = engine.encode_images(request.images)
                if not kept:
                    return Outcome(clean)
                levels = independent_levels(engine, request, clean, path, kept)
                each = [
                    self._invert(engine, path, image, text, {t: x[i : i + 1] for t, x in levels.items()}, settings)
                    for i, (image, text) in enumerate(zip(request.images, request.source_prompts, strict=True))
                ]
                maps = {t: torch.cat([one[str(t)] for one in each]).to(engine.device) for t in kept}
            with engine.cost.stage("synthesis"):
                lanes = {EDIT: Lane(levels[kept[0]], request.prompt, request.guidance_scale)}
                source = Trajectory(clean, levels)
                return Outcome(denoise(engine, request, lanes, kept, GivenNoise(maps), eta=1.0, source=source))

    def row_forwards(self, steps: int, settings: DDPMInversionSettings) -> str:
        """Two rows a step that is run, in each direction; skipped steps are not inverted either."""
        rows = 2 * len(kept_timesteps(range(steps), settings.skip))
        return f"inversion {rows} (half without a source prompt) + synthesis {rows}"

    def _invert(
        self,
        engine: Engine,
        path: Path,
        image: Image.Image,
        text: str,
        levels: dict[float, Tensor],
        settings: DDPMInversionSettings,
    ) -> dict[str, Tensor]:
        """Noise maps (1, C, h, w) of one picture by timestep, from the cache if they were made before."""
        key = content_key(
            what="ddpm inversion",
            model=engine.model_key(),
            image=image.tobytes(),
            size=list(image.size),
            prompt=text,
            levels={str(t): x for t, x in levels.items()},
            guidance=settings.source_guidance,
            last_noise=settings.last_noise,
        )

        def build() -> tuple[dict[str, Tensor], dict]:
            # an empty text equals the unconditional one: guidance would change nothing
            guided = text != "" and settings.source_guidance > 1
            prompt = engine.encode_prompt([text], [""] if guided else None)
            lane = Lane(next(iter(levels.values())), prompt, settings.source_guidance)
            maker = NoiseMaps(path, levels, engine.encode_images([image]), settings.last_noise == "kept")
            with engine.progress(len(levels), "inverting") as bar:
                sample(
                    engine.denoiser,
                    path,
                    {SOURCE: lane},
                    list(levels),
                    maker,
                    eta=1.0,
                    on_step=progress_reporter(bar, None),
                )
            return {str(t): z for t, z in maker.maps.items()}, {"prompt": text}

        return engine.cached("inversion", key, build)


class NoiseMaps(Controller):
    """Visits given levels of lane "source" and finds the noise that leads from each to the next.

    Args:
        path: with the sampling grid.
        levels: time -> x_t (B, C, h, w), descending. clean: x_0.
        keep_last: whether the step to x_0 gets its map, or zero.
    """

    def __init__(self, path: Path, levels: Mapping[float, Tensor], clean: Tensor, keep_last: bool) -> None:
        self.path, self.keep_last = path, keep_last
        below = [*list(levels)[1:], None]
        self.next = dict(zip(levels, below, strict=True))
        self.levels, self.clean = dict(levels), clean
        self.maps: dict[float, Tensor] = {}

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Set the lane to the step's level."""
        lanes[SOURCE].latents = self.levels[step.timestep]

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """None: the step then gives the mean mu_t."""
        return torch.zeros_like(lane.latents)

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """z_t from the mean; the next level is then recomputed from it, so that rounding does not add up."""
        mean, below = lanes[SOURCE].latents, self.next[step.timestep]
        sigma = self.path.deviation(step.timestep).to(mean)
        if sigma == 0 or (below is None and not self.keep_last):
            self.maps[step.timestep] = torch.zeros_like(mean)
        else:
            target = self.clean if below is None else self.levels[below]
            self.maps[step.timestep] = (target - mean) / sigma
        if below is not None:
            self.levels[below] = mean + sigma * self.maps[step.timestep]


class GivenNoise(Controller):
    """Plain sampling with given noise: time -> (B, C, h, w)."""

    def __init__(self, maps: Mapping[float, Tensor]) -> None:
        self.maps = maps

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """The step's map."""
        return self.maps[step.timestep].to(lane.latents)


def kept_timesteps(grid: Sequence[float], skip: float) -> list[float]:
    """The grid without the share `skip` of its first steps."""
    return [t for i, t in enumerate(grid) if Step(i, len(grid), t).within(skip, 1)]


def independent_levels(
    engine: Engine, request: Request, clean: Tensor, path: Path, kept: Sequence[float]
) -> dict[float, Tensor]:
    """x_t of the kept timesteps, each with a noise of its own; `request.latents` is the first one's."""
    levels = {}
    for timestep in path.times:
        # drawn for skipped steps too, so that a map does not depend on how many are skipped
        noise = engine.noise(request.size, request.generators)
        if timestep == kept[0] and request.latents is not None:
            noise = request.latents
        if timestep in kept:
            levels[timestep] = path.noised(clean, noise, timestep)
    return levels
