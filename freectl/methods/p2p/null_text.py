"""Null-text inversion (Mokady et al., CVPR 2023, arXiv 2211.09794): negatives fitted to undo guidance's drift."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from freectl.denoising.cost import Cost
from freectl.denoising.grad import frozen
from freectl.denoising.inversion import Trajectory
from freectl.denoising.inverters import Inverter, Level
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Denoiser, Lane, Prompt, Step, sample
from freectl.files.cache import content_key
from freectl.methods.base import Request
from freectl.models.engine import Engine

PIVOT = "pivot"
TOLERANCE, TOLERANCE_END = 1e-5, 1e-3
"""Mean squared error at which a step's optimisation stops: at the first step, and what is added up to the last."""


@dataclass(frozen=True)
class NullTextSettings:
    """How the embeddings are fitted.

    Attributes:
        steps: of Adam at each timestep, at most. rate: learning rate at the first timestep; the last one has half.
        inversion_at, inverter: as `inversion.invert` takes them.
    """

    steps: int = 10
    rate: float = 0.01
    inversion_at: Level = "lower"
    inverter: Inverter = "euler"


def null_text(
    engine: Engine, request: Request, texts: list[str], settings: NullTextSettings
) -> tuple[Trajectory, dict[float, Tensor]]:
    """Optimise the unconditional half so that guided sampling with the source prompt gives the inverted picture.

    Every picture is optimised by itself, so a batch gives what its pictures give alone; equal ones are done once. The
    optimisation starts at the run's negative prompt. Counted as row forwards and backwards; cached.

    Returns:
        The latents that sampling with the embeddings visits, and the embeddings (B, tokens, C) by timestep.
    """
    path = engine.path(request.steps)
    uncond = request.prompt.uncond
    if uncond is None:
        raise ValueError("null-text inversion needs classifier-free guidance")
    found: dict[Any, dict[str, Tensor]] = {}
    each = []
    for i, (image, text) in enumerate(zip(request.images, texts, strict=True)):
        negative = Prompt(uncond[i : i + 1], None, {"cond": _rows(request.prompt.added.get("uncond", {}), i)})
        at, inverter = settings.inversion_at, settings.inverter
        trajectory, key = engine.invert(image, text, path, evaluate_at=at, inverter=inverter)
        key = content_key(
            what="null text",
            trajectory=key,
            guidance=request.guidance_scale,
            negative=negative.cond,
            settings=[settings.steps, settings.rate],
        )
        if key not in found:
            found[key] = _optimised(engine, key, path, trajectory, text, negative, request.guidance_scale, settings)
        each.append((trajectory.clean, found[key]))
    embeddings, levels = (
        {t: torch.cat([one[f"{what}/{t}"] for _, one in each]).to(engine.device) for t in path.times}
        for what in ("embedding", "latents")
    )
    return Trajectory(torch.cat([clean for clean, _ in each]), levels), embeddings


def _rows(added: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    return {name: value[i : i + 1] for name, value in added.items()}


def _optimised(
    engine: Engine,
    key: str,
    path: Path,
    trajectory: Trajectory,
    text: str,
    negative: Prompt,
    guidance_scale: float,
    settings: NullTextSettings,
) -> dict[str, Tensor]:
    """Tensors "embedding/t" and "latents/t" of one picture."""

    def build() -> tuple[dict[str, Tensor], dict]:
        source = engine.encode_prompt([text])
        added = {"uncond": negative.added["cond"], **source.added} if source.added else {}
        lanes = {PIVOT: Lane(trajectory.start, Prompt(source.cond, negative.cond, added), guidance_scale)}
        optimiser = NullTextOptimiser(path, trajectory, settings, engine.cost)
        with engine.progress(len(path.times), "null text") as bar:
            sample(engine.denoiser, path, lanes, path.times, optimiser, on_step=lambda *_: bar.update())
        return optimiser.tensors, {"prompt": text}

    return engine.cached("inversion", key, build)


class NullTextOptimiser(Controller):
    """Fits lane "pivot"'s unconditional embedding at each step, starting from the step before's.

    Args:
        path: with the sampling grid.
        trajectory: of one picture; its next level is the target of a step.

    Attributes:
        tensors: "embedding/t" (1, tokens, C) and "latents/t" (1, C, h, w), before the step.
    """

    def __init__(self, path: Path, trajectory: Trajectory, settings: NullTextSettings, cost: Cost) -> None:
        self.path, self.settings, self.cost = path, settings, cost
        below = sorted(trajectory.levels)
        self.targets = {t: trajectory.levels[b] for t, b in zip(below[1:], below[:-1], strict=True)}
        self.targets[below[0]] = trajectory.clean
        self.tensors: dict[str, Tensor] = {}

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided output with the fitted embedding, which the lane has from now on."""
        lane = lanes[PIVOT]
        outputs = denoiser.rows(lanes, [(PIVOT, "cond")], step.timestep)
        cond = outputs[PIVOT, "cond"]
        with torch.enable_grad(), frozen(denoiser.network):
            embedding = lane.prompt.half("uncond").detach().clone().requires_grad_(True)
            rate = self.settings.rate * (1 - step.index / (2 * step.count))
            adam = torch.optim.Adam([embedding], lr=rate)
            for taken in range(self.settings.steps + 1):
                fitted = {PIVOT: replace(lane, prompt=replace(lane.prompt, uncond=embedding))}
                uncond = denoiser.rows(fitted, [(PIVOT, "uncond")], step.timestep)[PIVOT, "uncond"]
                guided = denoiser.guided(lane, {"uncond": uncond, "cond": cond}).to(lane.latents.dtype)
                below = self.path.step(guided, lane.latents, step.timestep)
                loss = (below - self.targets[step.timestep]).float().square().mean()
                allowed = TOLERANCE + TOLERANCE_END * step.index / step.count
                if taken == self.settings.steps or float(loss.detach()) < allowed:
                    break
                (embedding.grad,) = torch.autograd.grad(loss, [embedding])
                self.cost.add_backward(lane.latents.shape[0])
                adam.step()
        lane.prompt = replace(lane.prompt, uncond=embedding.detach())
        self.tensors[f"embedding/{step.timestep}"] = embedding.detach()
        self.tensors[f"latents/{step.timestep}"] = lane.latents
        return {PIVOT: guided.detach()}
