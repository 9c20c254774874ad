"""FlowEdit (Kulikov et al., ICCV 2025, arXiv 2412.08629) on flows, and for models that predict noise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from freectl.denoising.injection import EDIT, SOURCE
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Lane, Prompt, Step
from freectl.methods.base import Method, Outcome, Request, denoise, source_beside
from freectl.methods.local_edit import changing, straight_levels
from freectl.methods.setting import setting
from freectl.models.engine import Engine


class FlowEditSettings(BaseModel):
    """More of the schedule and more guidance change more."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strength: float = setting(
        0.66,
        "n_max: the last part of the schedule, which is run; 0 returns the input",
        ge=0,
        le=1,
        unit="share of steps",
        source="its code: 33 of 50 for Stable Diffusion 3",
    )
    plain: float = setting(
        0.0,
        "n_min: the last part of the schedule, sampled with the prompt alone; within n_max",
        ge=0,
        le=1,
        unit="share of steps",
        source="its code: 0",
    )
    average: int = setting(
        1, "n_avg: noise maps that each step averages over", ge=1, le=50, unit="maps", source="its code: 1"
    )
    source_guidance: float = setting(
        3.5, "guidance scale of the source prompt", ge=0, le=100, unit="factor", source="its code; 13.5 for the prompt"
    )
    against: Literal["negative", "source"] = setting(
        "negative",
        "what guidance leads the prompt away from: the negative prompt, or the source prompt, which then is not guided",
        unit="choice",
        source="negative; source is FlowAlign's (arXiv 2505.23145)",
    )
    alignment: float = setting(
        0.0,
        "zeta: share by which each step draws the picture that the edit stands for to that of the input",
        ge=0,
        le=1,
        unit="share a step",
        source="FlowAlign: 0.01; 0 is FlowEdit",
    )


class FlowEdit(Method[FlowEditSettings]):
    """The picture moves by the difference of what the model predicts for prompt and source prompt at the same noise.

    Published for flow models, with guidance 13.5 for the prompt, and run so on them. On others it is the same
    construction in the coordinates x_t / sqrt(abar_t), in which the model's ordinary differential equation reads
    dx = eps dsigma; the picture is then the edit's own state, never noise.
    """

    name = "flowedit"
    summary = "move the picture by the difference of two predictions at the same noise; no inversion, no attention"
    paper = "Kulikov et al., FlowEdit: Inversion-Free Text-Based Editing, ICCV 2025, arXiv 2412.08629"
    equations = """
flows (published):  z_s = (1 - s) x_0 + s e,  z_t = z + z_s - x_0,  z <- z + (s' - s) (v(z_t, prompt) - v(z_s, source))
others:  sigma_t = sqrt((1 - abar_t) / abar_t),  z = x_0 of the input at first,  e drawn anew at every step
z_s = x_0 + sigma_t e,  z_t = z + sigma_t e
z <- z + (sigma_{t-1} - sigma_t) (eps(z_t, prompt, s) - eps(z_s, source, s_src)), mean over n_avg, last n_max steps
both eps under the same negative prompt
the last n_min of them: plain sampling from x_t = sqrt(abar_t) (z + sigma_t e)
with alignment:  z <- z + zeta (x^(z_s) - x^(z_t)),  x^ the clean picture that a prediction stands for
against "source":  v(z_t) = v(z_t, source) + w (v(z_t, prompt) - v(z_t, source)),  v(z_s, source) as it is
"""
    settings = FlowEditSettings
    presets = {"default": {}, "flowalign": {"against": "source", "alignment": 0.01}}  # noqa: RUF012
    needs = ("image",)

    def run(self, engine: Engine, request: Request, settings: FlowEditSettings) -> Outcome:
        """Edit the request's pictures; see `FlowEditSettings`."""
        texts = request.source_prompts
        with engine.cost.counting(engine.network), engine.cost.stage("synthesis"):
            path = engine.path(request.steps)
            grid = path.times
            kept, plain = tail(grid, settings.strength), tail(grid, settings.plain)
            clean = engine.encode_images(request.images)
            if not kept:
                return Outcome(clean)
            lanes = self._lanes(engine, request, settings, clean)
            walk = Walk(path, clean, plain[-len(kept) :], settings.average, request.generators)
            walk.first, walk.alignment = request.latents, settings.alignment
            if request.kept:
                walk.mask = changing(request.kept, (clean.shape[-2], clean.shape[-1]), clean.device)
            # what is kept is kept by the walk, whose states are not those of a sampler
            latents = denoise(engine, replace(request, kept=[]), lanes, kept, walk, eta=0.0)
        return Outcome(latents, warnings=[] if all(texts) else ["flowedit without a source prompt moves from no words"])

    def _lanes(self, engine: Engine, request: Request, settings: FlowEditSettings, clean: Tensor) -> dict[str, Lane]:
        """The edit and the source, each with what its guidance leads away from."""
        prompt, source = request.prompt, source_beside(engine, request)
        if settings.against == "source" and prompt.uncond is not None:
            source = engine.encode_prompt(request.source_prompts)
            added = {**prompt.added, "uncond": source.added["cond"]} if source.added else prompt.added
            prompt = Prompt(prompt.cond, source.cond, added)
        return {
            EDIT: Lane(clean, prompt, request.guidance_scale),
            SOURCE: Lane(clean, source, settings.source_guidance),
        }

    def row_forwards(self, steps: int, settings: FlowEditSettings) -> str:
        """Four rows a step and noise map, two where the prompt is sampled alone."""
        kept, plain = (len(tail(range(steps), share)) for share in (settings.strength, settings.plain))
        plain = min(kept, plain)
        if settings.against == "source":
            return f"synthesis {3 * settings.average * (kept - plain) + 2 * plain}"
        rows = 4 * settings.average * (kept - plain) + 2 * plain
        return f"synthesis {rows} (3 instead of 4 a step where source and negative prompt are equal)"


def tail(grid: Sequence[float], share: float) -> list[float]:
    """The last part of a grid: `share` of its steps, rounded down as in the published code."""
    count = min(len(grid), int(share * len(grid) + 1e-9))
    return list(grid[len(grid) - count :])


class Walk(Controller):
    """Lane "edit" is the picture between steps; within one it and lane "source" are noised alike and stepped by DDIM.

    On a flow, Euler's steps move the difference of the two lanes, which is the picture's distance from the input.
    Elsewhere a DDIM step is x / sqrt(abar) <- x / sqrt(abar) + (sigma_below - sigma) eps, so the difference of the two
    stepped lanes, divided by the lower level's sqrt(abar), is the picture's new distance from the input.

    Args:
        path: with the sampling grid.
        clean: the input's latents (B, C, h, w).
        plain: timesteps, descending, at which the edit is sampled by itself.
        average: noise maps a step.
        generators: one CPU generator an image, or None for torch's own.

    Attributes:
        first: noise of the first step, in place of the generators'.
        alignment: zeta, as `FlowEditSettings` has it.
        mask: (B, 1, h, w), 1 where the picture may change; None for everywhere.
    """

    def __init__(
        self,
        path: Path,
        clean: Tensor,
        plain: Sequence[float],
        average: int,
        generators: Sequence[torch.Generator] | None,
    ) -> None:
        self.path, self.clean, self.plain = path, clean, list(plain)
        self.average, self.generators = average, generators
        # on a flow the two lanes differ by the picture's distance itself, as published
        self.native = path.kind == "velocity"
        self.first: Tensor | None = None
        self.alignment = 0.0
        self.mask: Tensor | None = None
        self._picture = clean
        self._moves: list[Tensor] = []
        self._below: Mapping[float, Tensor] = {}

    def repeats(self, step: Step) -> int:
        """One take for each noise map."""
        return 0 if step.timestep in self.plain else self.average - 1

    def active(self, step: Step, lanes: dict[str, Lane]) -> tuple[str, ...]:  # type: ignore[override]
        """Both lanes; the edit alone where it is sampled by itself."""
        return (EDIT,) if step.timestep in self.plain else (EDIT, SOURCE)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Noise both lanes alike; the edit once more where plain sampling begins."""
        edit, source = lanes[EDIT], lanes.get(SOURCE)
        if source is None and step.timestep != self.plain[0]:
            return
        if step.repeat == 0:
            self._picture, self._moves = edit.latents, []
        noise = super().noise(step, EDIT, edit, self.generators)
        if self.first is not None:
            noise, self.first = self.first.to(noise), None
        noised = self.path.mixed(self.clean, noise, step.timestep)
        if self.native:
            edit.latents = self._picture + noised - self.clean
        else:
            edit.latents = self.path.mixed(self._picture, noise, step.timestep)
        if source is not None:
            source.latents = noised
        elif self.mask is not None:
            self._below = straight_levels(self.path, self.clean, noised, self.plain).below

    def after(self, step: Step, lanes: dict[str, Lane]) -> None:
        """The picture again, moved by the mean of the takes."""
        edit = lanes[EDIT]
        if SOURCE not in lanes:
            edit.latents = self._masked(edit.latents, self._below.get(step.timestep, self.clean))
            return
        distance = edit.latents - lanes[SOURCE].latents
        if not self.native:
            below, _ = self.path.coefficients(self.path.below(step.timestep))
            distance = distance / below.to(self.clean)
        if self.alignment:
            distance = distance + self.alignment * self._apart(lanes)
        self._moves.append(self.clean + distance)
        if step.repeat == self.repeats(step):
            edit.latents = self._masked(torch.stack(self._moves).mean(0), self.clean)

    def _apart(self, lanes: Mapping[str, Lane]) -> Tensor:
        """How far the picture that the edit stands for is from the source's."""
        edit, source = lanes[EDIT].clean, lanes[SOURCE].clean
        if edit is None or source is None:
            raise RuntimeError("the lanes have taken no step")
        return source - edit

    def _masked(self, latents: Tensor, kept: Tensor) -> Tensor:
        return latents if self.mask is None else torch.where(self.mask > 0, latents, kept.to(latents))
