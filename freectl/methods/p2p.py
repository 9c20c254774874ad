"""Prompt-to-Prompt (Hertz et al., ICLR 2023, arXiv 2208.01626): attention maps of the source prompt in the edit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor, nn

from freectl.engine import Engine
from freectl.injection import (
    EDIT,
    SOURCE,
    Injection,
    SourceInjector,
    copy_rows,
    cross_attentions,
    projections,
    row_places,
    self_attentions,
)
from freectl.methods.base import Method, Outcome, Request, denoise, inverted
from freectl.methods.p2p_align import Alignment, align, parse_weights
from freectl.methods.setting import setting
from freectl.null_text import NullTextSettings, null_text
from freectl.sampler import Lane, Prompt, RowKey, Step, row_keys
from freectl.taps import Edit

ROW: RowKey = (EDIT, "cond")
FROM: RowKey = (SOURCE, "cond")


class P2PSettings(BaseModel):
    """Longer windows keep more of the layout. Both windows start with the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edit: Literal["auto", "replace", "refine"] = setting(
        "auto",
        "word for word, or keep common tokens and let new ones be; auto: replace at equal counts",
        unit="choice",
        source="section 3.2; auto is ours",
    )
    cross_stop: float = setting(
        0.8, "cross-attention is edited up to here", ge=0, le=1, unit="share of steps", source="section 3.2; its code"
    )
    self_stop: float = setting(
        0.4, "self-attention is replaced up to here", ge=0, le=1, unit="share of steps", source="its code"
    )
    self_area: float = setting(
        0.25,
        "largest self-attention maps that are replaced",
        ge=0,
        le=1,
        unit="share of the latent's pixels",
        source="its code: 32 x 32 of 64 x 64",
    )
    reweight: str = setting(
        "", "word=factor, comma separated, each -10 to 10: how much the words count", unit="text", source="section 3.2"
    )
    inversion: Literal["direct", "ddim", "negative-prompt", "null-text"] = setting(
        "direct",
        "source row held on the inversion, sampled freely, or negatives made of the source prompt, or fitted",
        unit="choice",
        source="direct: arXiv 2310.01506; ddim: section 4.1; negative-prompt: arXiv 2305.16807; null-text: 2211.09794",
    )
    null_steps: int = setting(
        10,
        "null-text: Adam's steps at each timestep at most; fewer where the error is small",
        ge=0,
        le=1000,
        unit="steps",
        source="arXiv 2211.09794, section 5; its code",
    )
    null_rate: float = setting(
        0.01, "null-text: Adam's learning rate at the first timestep", gt=0, le=1, unit="rate", source="its code"
    )

    @field_validator("reweight")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_weights(text)
        return text


class P2P(Method[P2PSettings]):
    """The edit's attention maps come from the source prompt's row: cross-attention by aligned tokens, self as it is.

    Published for Stable Diffusion 1.4 with 50 steps and guidance 7.5. "direct" is Ju et al., arXiv 2310.01506;
    "negative-prompt" is Miyake et al., arXiv 2305.16807; "null-text" is Mokady et al., arXiv 2211.09794.
    """

    name = "p2p"
    summary = "replace, refine or reweight cross-attention maps of the source prompt"
    paper = "Hertz et al., Prompt-to-Prompt Image Editing with Cross-Attention Control, ICLR 2023, arXiv 2208.01626"
    equations = """
x_T: DDIM inversion of the input with the source prompt;  M = softmax(Q K^T / sqrt(d))
cross-attention, first cross_stop of the steps:
  replace   M_edit <- M_source P,  P: tokens of the n-th source word -> tokens of the n-th target word
  refine    (M_edit)_j <- (M_source)_A(j) for aligned tokens j, its own otherwise
  reweight  (M_edit)_j <- c_j (M_edit)_j
self-attention, first self_stop of the steps:  M_edit <- M_source where its pixels are few
edits act on the conditional half of eps_u + s (eps_c - eps_u)
"""
    settings = P2PSettings
    presets = {  # noqa: RUF012
        "default": {},
        "published": {"inversion": "ddim"},
        "null-text": {"inversion": "null-text"},
        "pie-bench": {"cross_stop": 0.4, "self_stop": 0.6},
    }
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: P2PSettings) -> Outcome:
        """Edit the request's pictures; see `P2PSettings`."""
        texts = request.source_prompts
        alignment = align(engine.pipe.tokenizer, texts, request.texts, settings.edit, settings.reweight)
        injections = [
            Injection(projections(self_attentions(engine.unet), "qk"), stop=settings.self_stop),
            Injection(tuple(cross_attentions(engine.unet)), stop=settings.cross_stop),
        ]
        with engine.cost.counting(engine.unet):
            guided = request.prompt.uncond is not None
            nulls: Mapping[int, Tensor] = {}
            with engine.cost.stage("analysis"):
                if guided and settings.inversion == "null-text":
                    how = NullTextSettings(settings.null_steps, settings.null_rate)
                    trajectory, nulls = null_text(engine, request, texts, how)
                else:
                    trajectory = inverted(engine, request, texts)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                free = guided and settings.inversion == "ddim"
                source = engine.encode_prompt(texts, [""] * len(texts) if free else None)
                prompt = request.prompt
                if guided and settings.inversion == "negative-prompt":
                    # the source's own halves are then equal, and one row is enough
                    prompt = Prompt(prompt.cond, source.cond, prompt.added)
                lanes = {
                    EDIT: Lane(start, prompt, request.guidance_scale),
                    SOURCE: Lane(start, source, request.guidance_scale),
                }
                # of the source only the conditional row is read; sampled with its nulls it would visit these levels too
                levels = trajectory.levels if settings.inversion in ("direct", "null-text") else {}
                controller = MapInjector(levels, injections, alignment.to(engine.device), settings.self_area, nulls)
                latents = denoise(engine, request, lanes, list(trajectory.levels), controller, source=trajectory)
        return Outcome(latents, warnings=[] if all(texts) else ["p2p without a source prompt has no words to align"])

    def row_forwards(self, steps: int, settings: P2PSettings) -> str:
        """Two rows a step, and the source's while maps are taken from it: two if it is sampled with guidance."""
        shared = Injection((), stop=max(settings.cross_stop, settings.self_stop)).steps(steps)
        each = 2 if settings.inversion == "ddim" else 1
        fitting = ""
        if settings.inversion == "null-text":
            most, least = (settings.null_steps + 2) * steps, 2 * steps
            backwards = f"{settings.null_steps * steps} row backwards"
            fitting = f"null-text {most} (at most, with {backwards}; at least {least} with none) + "
        return f"inversion {steps} + {fitting}synthesis {2 * steps + each * shared}"


class MapInjector(SourceInjector):
    """Edits the attention maps of the edit's conditional row; without `levels` the source lane is sampled freely.

    A self-attention map is replaced by replacing its queries and keys. With `nulls`, timestep -> (B, tokens, C), these
    are the edit's unconditional embeddings.
    """

    def __init__(
        self,
        levels: Mapping[int, Tensor],
        injections: Sequence[Injection],
        alignment: Alignment,
        self_area: float,
        nulls: Mapping[int, Tensor] | None = None,
    ) -> None:
        super().__init__(levels, injections)
        self.alignment, self.self_area, self.nulls = alignment, self_area, nulls or {}

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Hold the source on its levels, if it has any; give the edit the step's unconditional embedding."""
        if self.levels:
            super().before(step, lanes)
        edit = lanes[EDIT]
        if self.nulls and edit.prompt.uncond is not None:
            edit.prompt = replace(edit.prompt, uncond=self.nulls[step.timestep])

    def edits(self, step: Step, lanes: Mapping[str, Lane], unet: nn.Module) -> dict[str, Edit]:
        """Edits of self-attention queries and keys, and of whole cross-attention layers."""
        places = row_places(lanes, row_keys(lanes))
        limit = self.self_area * lanes[EDIT].latents.shape[-1] * lanes[EDIT].latents.shape[-2]
        edits: dict[str, Edit] = {}
        for site in self.sites(step):
            if site.endswith(".attn2"):
                edits |= CrossMapEdit(unet.get_submodule(site), places, self.alignment).edits(site)
            else:
                edits[site] = partial(_copy_small, places=places, limit=limit)
        return edits


def _copy_small(value: Tensor, places: Mapping[RowKey, slice], limit: float) -> Tensor:
    return copy_rows(value, places, {ROW: FROM}) if value.shape[1] <= limit else value


class CrossMapEdit:
    """Edits one cross-attention layer: its output changes by what the map's change adds.

    Args:
        layer: the diffusers `Attention`.
        places: rows of the stacked batch.
    """

    def __init__(self, layer: Any, places: Mapping[RowKey, slice], alignment: Alignment) -> None:
        self.layer, self.alignment = layer, alignment
        self.row, self.source = places[ROW], places[FROM]
        self._seen: dict[str, Tensor] = {}

    def edits(self, site: str) -> dict[str, Edit]:
        """For `freectl.taps.tap`: watch the layer's projections, change its output."""
        return {f"{site}.to_{letter}": partial(self._watch, letter) for letter in "qkv"} | {site: self._apply}

    def _watch(self, letter: str, value: Tensor) -> Tensor:
        self._seen[letter] = value
        return value

    def _apply(self, output: Tensor) -> Tensor:
        own, source = self._map(self.row), self._map(self.source)
        change = self.alignment.mix(source, own) - own
        hidden = (change @ self._heads(self._seen["v"][self.row])).transpose(1, 2).flatten(2).to(output.dtype)
        project = self.layer.to_out[0]
        # the projection is linear up to its bias, so the change goes through it alone: what adapters add stays
        added = (project(hidden) - project(torch.zeros_like(hidden))) / self.layer.rescale_output_factor
        edited = output.clone()
        edited[self.row] = output[self.row] + added
        return edited

    def _map(self, rows: slice) -> Tensor:
        """Attention of the rows, (B, heads, pixels, tokens)."""
        q, k = (self._heads(self._seen[letter][rows]) for letter in "qk")
        return (q @ k.transpose(-1, -2) * self.layer.scale).softmax(-1)

    def _heads(self, value: Tensor) -> Tensor:
        return value.float().unflatten(-1, (self.layer.heads, -1)).transpose(1, 2)
