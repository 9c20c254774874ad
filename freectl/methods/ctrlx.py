"""Ctrl-X (Lin et al., NeurIPS 2024, arXiv 2406.07540): structure and appearance fed forward, nothing inverted."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from freectl.denoising.injection import EDIT, Injection, copies, parts_of, row_places
from freectl.denoising.path import Path
from freectl.denoising.sampler import Controller, Denoiser, Half, Lane, Prompt, RowKey, Step, row_keys
from freectl.denoising.taps import Edit, tap
from freectl.errors import InputError
from freectl.methods.appearance import Deviation, transferred
from freectl.methods.base import Method, Outcome, Request, denoise
from freectl.methods.setting import setting
from freectl.models.engine import Engine
from freectl.models.families.base import CtrlXSites

STRUCTURE, APPEARANCE = "structure", "appearance"
ROW: RowKey = (EDIT, "cond")


class CtrlXSettings(BaseModel):
    """Longer windows keep more of the structure and of the appearance; both start with the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    structure_stop: float = setting(
        0.6,
        "tau_s: features, queries and keys of the structure are injected up to here",
        ge=0,
        le=1,
        unit="share of steps",
        source="the paper's; its authors advise 0.3 to 0.5 for boxes and skeletons",
    )
    appearance_stop: float = setting(
        0.6, "tau_a: statistics are transferred up to here", ge=0, le=1, unit="share of steps", source="the paper's"
    )
    recurrence_start: float = setting(
        0.1, "self-recurrence starts here", ge=0, le=1, unit="share of steps", source="its code"
    )
    recurrence_stop: float = setting(
        0.5, "self-recurrence stops here", ge=0, le=1, unit="share of steps", source="its code"
    )
    recurrences: int = setting(
        2,
        "how often a step in that window is noised again and denoised without control",
        ge=0,
        le=10,
        unit="times a step",
        source="its code",
    )
    sampler_eta: float = setting(
        1.0, "eta of the DDIM steps; 0 is deterministic", ge=0, le=1, unit="factor", source="its code"
    )
    appearance_text: str = setting("", "what the appearance picture shows", unit="text", source="its code")
    empty_text: Literal["empty", "prompt"] = setting(
        "empty",
        "what an empty source prompt or appearance_text stands for: no words, or the prompt",
        unit="choice",
        source="prompt in its code; empty is ours",
    )
    asking: Literal["own", "structure"] = setting(
        "own",
        "whose queries look for the appearance where the structure's are injected too: the edit's, or the structure's",
        unit="choice",
        source="structure in its code; own is the paper's",
    )
    deviation: Deviation = setting(
        "population",
        "deviation of norm: over n with 1e-5 added to the variance, or over n - 1 as it is",
        unit="choice",
        source="sample in its code; population is ours",
    )
    first_step: Literal["noised", "start"] = setting(
        "noised",
        "given pictures in the first step: noised, or the noise that the edit starts from",
        unit="choice",
        source="start in its code; noised is the paper's",
    )


class CtrlX(Method[CtrlXSettings]):
    """Rows of the structure picture and of the appearance, noised afresh at every step, run beside the edit's.

    Only the edit's conditional row is changed. Without an appearance picture its row is an uncontrolled sibling: the
    same noise and prompt. Published for SDXL at 1024 px with 50 steps and guidance 5; the preset "published" is its
    code to the letter, the default the paper's equations.
    """

    name = "ctrlx"
    summary = "inject structure features and attention, transfer appearance statistics; no inversion, no gradient"
    paper = "Lin et al., Ctrl-X: Controlling Structure and Appearance without Guidance, NeurIPS 2024, arXiv 2406.07540"
    equations = """
x_t^s = sqrt(abar_t) x_0^s + sqrt(1 - abar_t) e,  x_t^a alike,  e drawn anew at every step
f_t, Q_t, K_t <- those of x_t^s while t is in the first tau_s of the steps: one residual block, the attentions behind it
h <- S norm(h) + M before self-attention while t is in the first tau_a,  norm over the tokens of each channel
A = softmax(norm(h) W_q (norm(h^a) W_k)^T / sqrt(d)),  M = A h^a,  S = sqrt(A (h^a)^2 - M^2)
its code: A of norm(h^s) in the layers of Q_t, K_t
all in the conditional half of eps_u + s (eps_c - eps_u) alone
"""
    settings = CtrlXSettings
    presets = {  # noqa: RUF012
        "default": {},
        "skeleton": {"structure_stop": 0.4},
        "published": {
            "empty_text": "prompt",
            "asking": "structure",
            "deviation": "sample",
            "first_step": "start",
        },
    }
    needs = ("image",)
    inputs = ("appearance_image", "conditions")

    def run(self, engine: Engine, request: Request, settings: CtrlXSettings) -> Outcome:
        """Edit the request's pictures, or follow its condition; see `CtrlXSettings`."""
        images, texts = structure_pictures(request)
        with engine.cost.counting(engine.network), engine.cost.stage("synthesis"):
            path = engine.path(request.steps)
            start = request.latents
            if start is None:
                start = engine.noise(request.size, request.generators)
            instead = request.prompt if settings.empty_text == "prompt" else None
            clean = {STRUCTURE: engine.encode_images(images)}
            lanes = {
                EDIT: Lane(start, request.prompt, request.guidance_scale),
                STRUCTURE: Lane(start, told(engine, texts, instead)),
            }
            if request.appearance_image is None:
                lanes[APPEARANCE] = Lane(start.clone(), request.prompt, request.guidance_scale)
            else:
                own = told(engine, [settings.appearance_text] * len(texts), instead)
                lanes[APPEARANCE] = Lane(start, own)
                clean[APPEARANCE] = engine.encode_images([request.appearance_image] * len(texts))
            controller = CtrlXController(path, engine.family.ctrlx_sites(engine.network), settings, clean)
            controller.generators = request.generators
            return Outcome(denoise(engine, request, lanes, path.times, controller, eta=settings.sampler_eta))

    def row_forwards(self, steps: int, settings: CtrlXSettings) -> str:
        """Two rows a step and a recurrence, one of the structure, and two of a sibling or one of a picture."""
        structure = Injection((), stop=settings.structure_stop).steps(steps)
        appearance = Injection((), stop=settings.appearance_stop).steps(steps)
        window = Injection((), settings.recurrence_start, settings.recurrence_stop).steps(steps)
        rest = 2 * steps + structure + 2 * settings.recurrences * window
        return f"synthesis {rest + 2 * appearance} ({rest + appearance} with an appearance picture)"


def told(engine: Engine, texts: Sequence[str], instead: Prompt | None) -> Prompt:
    """The texts without an unconditional half; in place of empty ones the prompt `instead`, of the same batch."""
    found, empty = engine.encode_prompt(texts), torch.tensor([text == "" for text in texts])
    if instead is None or not empty.any():
        return found
    halves: dict[Half, Any] = {"cond": instead.added["cond"]} if instead.added else {}
    if empty.all():
        return Prompt(instead.cond, None, halves)
    added = {name: _chosen(empty, value, found.added["cond"][name]) for name, value in halves.get("cond", {}).items()}
    return Prompt(_chosen(empty, instead.cond, found.cond), None, {"cond": added} if added else {})


def structure_pictures(request: Request) -> tuple[list[Image.Image], list[str]]:
    """The picture whose structure each output follows, and what it shows.

    Raises:
        InputError: several conditions, or a picture as a condition's mask.
    """
    if not request.conditions:
        return request.images, request.source_prompts
    if len(request.conditions) > 1:
        raise InputError("--condition", f"{len(request.conditions)} for ctrlx", "one; several with freecontrol")
    condition = request.conditions[0]
    if isinstance(condition.mask, Image.Image):
        raise InputError("--mask", "a picture for ctrlx, which follows all of a condition", "none, or another --method")
    count = len(request.texts)
    return [condition.image] * count, [condition.source_prompt] * count


class CtrlXController(Controller):
    """Injects from lane "structure" and transfers statistics from lane "appearance", while their windows last.

    Args:
        path: with the sampling grid.
        sites: where.
        clean: lane -> clean latents (B, C, h, w) that it is noised from at each step; other lanes are denoised.

    Attributes:
        generators: one CPU generator an image, or None for torch's own.
    """

    def __init__(
        self,
        path: Path,
        sites: CtrlXSites,
        settings: CtrlXSettings,
        clean: Mapping[str, Tensor],
    ) -> None:
        self.path, self.sites, self.settings, self.clean = path, sites, settings, clean
        self.generators: Sequence[torch.Generator] | None = None

    def repeats(self, step: Step) -> int:
        """Self-recurrence: how often the step is taken again."""
        inside = step.within(self.settings.recurrence_start, self.settings.recurrence_stop)
        return self.settings.recurrences if inside else 0

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """The edit, and what controls it in this step; nothing does in a repeat."""
        stops = {STRUCTURE: self.settings.structure_stop, APPEARANCE: self.settings.appearance_stop}
        controls = [name for name, stop in stops.items() if step.repeat == 0 and step.within(0, stop)]
        return tuple(name for name in lanes if name == EDIT or name in controls)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Noise the given pictures afresh; take the edit one level back before a repeat."""
        from_start = step.index == 0 and self.settings.first_step == "start"
        for name, clean in self.clean.items():
            if name in lanes and not from_start:
                noise = super().noise(step, name, lanes[name], self.generators)
                lanes[name].latents = self.path.noised(clean, noise, step.timestep)
        if step.repeat:
            edit = lanes[EDIT]
            noise = super().noise(step, EDIT, edit, self.generators)
            edit.latents = self.path.renoised(edit.latents, noise, step.timestep)

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs with injection and transfer in place."""
        with tap(denoiser.network, edits=self.edits(lanes, denoiser)):
            return super().predict(step, lanes, denoiser)

    def edits(self, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Edit]:
        """What the lanes that are there change, for `taps.tap`."""
        places, edits = row_places(lanes, row_keys(lanes)), {}
        if STRUCTURE in lanes:
            parts = parts_of(denoiser, lanes[EDIT].latents)
            edits = copies(self.sites.injected, places, {ROW: (STRUCTURE, "cond")}, parts)
        if APPEARANCE in lanes:
            rows, given = places[ROW], places[APPEARANCE, "cond"]
            asking = places.get((STRUCTURE, "cond")) if self.settings.asking == "structure" else None
            for layer, entry in self.sites.transferred.items():
                edits[entry] = partial(
                    _transfer,
                    rows=rows,
                    given=given,
                    asking=asking if any(site.startswith(f"{layer}.") for site in self.sites.injected) else None,
                    attention=denoiser.network.get_submodule(layer),
                    deviation=self.settings.deviation,
                )
        return edits

    def noise(self, step: Step, name: str, lane: Lane, generators: Sequence[torch.Generator] | None) -> Tensor:
        """None for lanes that are noised afresh anyway."""
        return torch.zeros_like(lane.latents) if name in self.clean else super().noise(step, name, lane, generators)


def _transfer(
    value: Tensor, rows: slice, given: slice, asking: slice | None, attention: nn.Module, deviation: Deviation
) -> Tensor:
    changed, structure = value.clone(), None if asking is None else value[asking]
    changed[rows] = transferred(value[rows], value[given], attention, structure, deviation)
    return changed


def _chosen(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Entries of `one` where `rows` (B,) is true, else of `other`."""
    return torch.where(rows.to(one.device).view(-1, *[1] * (one.dim() - 1)), one, other)
