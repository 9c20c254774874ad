"""RF-Inversion (Rout et al., ICLR 2025, arXiv 2410.10792): a flow steered to given noise, and back past the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from freectl.denoising.injection import EDIT
from freectl.denoising.inversion import Adjust, Split, Trajectory
from freectl.denoising.inverters import SCHEMES, Inverter
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Denoiser, Lane, Step
from freectl.errors import InputError
from freectl.methods.base import Method, Outcome, Request, denoise
from freectl.methods.inverter import inverter
from freectl.methods.setting import setting
from freectl.models.engine import Engine
from freectl.models.families.base import Family


class RFInversionSettings(BaseModel):
    """More pull, and a longer window for it, keep more of the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = setting(
        0.5,
        "how firmly the inversion is steered to noise of the seed: 0 = not at all, 1 = straight to it",
        ge=0,
        le=1,
        unit="share",
        source="its controlled forward equation; 0.5 in its code",
    )
    pull: float = setting(
        0.9,
        "eta: how firmly sampling is pulled to the picture: 0 = not at all, 1 = straight to it",
        ge=0,
        le=1,
        unit="share",
        source="its controlled reverse equation; 0.9 in its code, 1 for more of the picture",
    )
    pull_start: float = setting(
        0.0, "sampling is pulled from here", ge=0, le=1, unit="share of steps", source="0 in its code"
    )
    pull_stop: float = setting(
        0.25, "sampling is pulled up to here", ge=0, le=1, unit="share of steps", source="7 of 28 steps in its code"
    )
    inverter: Inverter = inverter()


class RFInversion(Method[RFInversionSettings]):
    """Both ways the velocity is mixed with the straight one to where the walk should end.

    Up with no words, to noise that is drawn from the seed, so that the start is as likely as a sampler's; down with
    the prompt, in the first steps towards the input. Published for FLUX with 28 steps and guidance 3.5.
    """

    name = "rf-inversion"
    summary = "invert towards drawn noise, then sample with the velocity pulled towards the input; no attention"
    paper = "Rout et al., Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations, "
    paper += "ICLR 2025, arXiv 2410.10792"
    equations = """
up, s from 0 to 1:    dY = [u + gamma ((n - Y) / (1 - s) - u)] ds,  u = v(Y, s, no words),  n drawn from the seed
down, s from 1 to 0:  dX = [v + eta ((X - x_0) / s - v)] ds,  v = v_u + w (v_c - v_u),  eta = pull in its window, else 0
in the noise n^ = Y + (1 - s) u and the picture x^ = X - s v that a velocity stands for these are
  n^ <- (1 - gamma) n^ + gamma n,    x^ <- (1 - eta) x^ + eta x_0
"""
    settings = RFInversionSettings
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: RFInversionSettings) -> Outcome:
        """Edit the request's pictures; see `RFInversionSettings`."""
        with engine.cost.counting(engine.network):
            path = engine.path(request.steps)
            with engine.cost.stage("analysis"):
                noise = request.latents
                if noise is None:
                    noise = engine.noise(request.size, request.generators)
                trajectory = steered(engine, request, path, noise, settings)
            with engine.cost.stage("synthesis"):
                lanes = {EDIT: Lane(trajectory.start, request.prompt, request.guidance_scale)}
                pull = Pull(path, trajectory.clean, settings)
                return Outcome(denoise(engine, request, lanes, path.times, pull, source=trajectory))

    def resolved(
        self, settings: RFInversionSettings, family: Family, *, appearance_image: bool = False
    ) -> RFInversionSettings:
        """As they are.

        Raises:
            InputError: an inverter that reads the field at the last level, where it has no value.
        """
        if settings.inverter == "uniedit" and settings.gamma:
            found = "uniedit with gamma, whose field ends in noise and has no value there"
            raise InputError("--set inverter", found, "euler, midpoint or fireflow, or gamma=0")
        return super().resolved(settings, family)

    def row_forwards(self, steps: int, settings: RFInversionSettings) -> str:
        """The inversion's rows without words, and two a step."""
        return f"inversion {SCHEMES[settings.inverter].rows(steps)} + synthesis {2 * steps}"


def steered(engine: Engine, request: Request, path: Path, noise: Tensor, settings: RFInversionSettings) -> Trajectory:
    """Inversions of the request's pictures, each towards its noise (1, C, h, w) of (B, C, h, w); cached."""
    each = [
        engine.invert(
            image, "", path, prior=Towards(path, noise[i : i + 1], settings.gamma), inverter=settings.inverter
        )
        for i, image in enumerate(request.images)
    ]
    levels = {time: torch.cat([one.levels[time] for one, _ in each]) for time in path.times}
    return Trajectory(torch.cat([one.clean for one, _ in each]), levels)


@dataclass(frozen=True)
class Towards:
    """Mixes the noise that an inversion's outputs stand for with given noise (1, C, h, w); a prior of `Inverter`."""

    path: Path
    noise: Tensor
    gamma: float

    def key(self) -> list[Any]:
        """All that it depends on."""
        return ["towards", self.gamma, self.noise]

    def adjustment(self) -> Adjust:
        """As `freectl.denoising.inversion.invert` takes it."""

        def adjust(output: Tensor, split: Split, time: float) -> Tensor:
            found, (a, _) = split(output)[1], self.path.coefficients(time)
            # (n - Y) / (1 - s) - u, with Y + (1 - s) u the noise that was found
            return output + self.gamma * (self.noise.to(found) - found) / a.to(found)

        return adjust


class Pull(Controller):
    """Mixes the clean picture that lane "edit"'s outputs stand for with the input, in a window of the steps.

    Args:
        path: with the sampling grid. clean: the input's latents (B, C, h, w).
    """

    def __init__(self, path: Path, clean: Tensor, settings: RFInversionSettings) -> None:
        self.path, self.clean, self.settings = path, clean, settings

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs, the edit's pulled while eta acts."""
        outputs = super().predict(step, lanes, denoiser)
        settings, edit = self.settings, lanes[EDIT]
        if settings.pull and step.within(settings.pull_start, settings.pull_stop):
            output = outputs[EDIT].to(edit.latents.dtype)
            found, (_, s) = (
                self.path.split(output, edit.latents, step.timestep)[0],
                self.path.coefficients(step.timestep),
            )
            # (X - x_0) / s - v, with X - s v the picture that was found
            outputs[EDIT] = output + settings.pull * (found - self.clean.to(found)) / s.to(found)
        return outputs
