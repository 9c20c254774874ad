"""pix2pix-zero (Parmar et al., SIGGRAPH 2023, arXiv 2302.03027): an edit direction, held by cross-attention."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor, nn

from freectl import directions
from freectl.cost import Cost
from freectl.engine import Engine
from freectl.grad import frozen
from freectl.injection import EDIT, SOURCE, SourceInjector, cross_attentions, projections, row_places
from freectl.methods.base import Method, Outcome, Request, denoise, inverted
from freectl.methods.setting import setting
from freectl.noise_prior import NoisePrior
from freectl.sampler import Denoiser, Half, Lane, Prompt, RowKey, Step, row_keys
from freectl.taps import tap


class Pix2PixZeroSettings(BaseModel):
    """More guidance keeps more of the input's layout; its authors advise to vary it by 0.05."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    xa_guidance: float = setting(
        0.1,
        "step of cross-attention guidance on the latents; 0 leaves them free",
        ge=0,
        le=100,
        unit="latent per unit of the loss's slope",
        source="cross-attention guidance; its code",
    )
    direction: str = setting(
        "",
        "source=target words, comma separated; empty: the words in which the prompts differ",
        unit="text",
        source="edit directions",
    )
    sentences: int = setting(
        100,
        "sentences a word that the direction is averaged over, spread over those of prompts/directions.yaml",
        ge=1,
        le=1000,
        unit="sentences",
        source="edit directions: about 1000; 100 is ours",
    )
    negative: Literal["source", "given"] = setting(
        "source",
        "unconditional half: the source prompt, or the run's negative prompt",
        unit="choice",
        source="source in its code",
    )
    steer: Literal["shared", "halves"] = setting(
        "shared",
        "guidance moves one latent for both halves, or one a half, of which the unconditional one goes on",
        unit="choice",
        source="shared: the paper's one x_t; halves: its code",
    )
    source_row: Literal["free", "held"] = setting(
        "free",
        "whose maps are kept: of the reconstruction, or of the inverted latents themselves",
        unit="choice",
        source="free: the paper's; held: arXiv 2310.01506",
    )
    auto_corr: float = setting(
        20.0,
        "lambda of auto-correlation in the inversion",
        ge=0,
        le=1000,
        unit="weight",
        source="noise regularisation; its code",
    )
    kl: float = setting(
        20.0, "lambda of the variance term in the inversion", ge=0, le=1000, unit="weight", source="its code"
    )
    rounds: int = setting(
        5,
        "rounds of both terms in each step of the inversion; 0 switches them off",
        ge=0,
        le=100,
        unit="rounds",
        source="its code",
    )
    rolls: int = setting(5, "auto-correlation steps a round", ge=1, le=100, unit="steps", source="its code")

    @field_validator("direction")
    @classmethod
    def _readable(cls, text: str) -> str:
        directions.parse_pairs(text)
        return text


class Pix2PixZero(Method[Pix2PixZeroSettings]):
    """The source prompt plus a direction, and a gradient step that brings cross-attention back to the source's.

    Published for Stable Diffusion 1.4 with 50 steps and guidance 5. Each picture is inverted and guided by itself,
    whatever the batch.
    """

    name = "pix2pix-zero"
    summary = "add an edit direction to the source prompt, keep its cross-attention maps by gradient"
    paper = "Parmar et al., Zero-shot Image-to-Image Translation, SIGGRAPH 2023, arXiv 2302.03027"
    equations = """
d = mean over sentences of E(sentence with target word) - mean of E(sentence with source word)
inversion: eps <- eps - lambda grad L_auto-correlation, then eps <- eps - lambda grad L_KL, several times a step
M = softmax(Q K^T / sqrt(d)) of all cross-attentions;  M_s of the source prompt's reconstruction
x_t <- x_t - xa grad sum over layers of |M(x_t, c + d) - M_s|^2, mean over heads and halves, sum over pixels and tokens
eps_n + s (eps(x_t, c + d) - eps_n),  n: the source prompt
"""
    settings = Pix2PixZeroSettings
    presets = {  # noqa: RUF012
        "default": {},
        "published": {"sentences": 1000, "steer": "halves"},
    }
    needs = ("image", "inversion", "gradient")

    def run(self, engine: Engine, request: Request, settings: Pix2PixZeroSettings) -> Outcome:
        """Edit the request's pictures; see `Pix2PixZeroSettings`."""
        texts = request.source_prompts
        pairs = directions.parse_pairs(settings.direction)
        family = engine.family.name
        sets = [
            directions.sentence_sets(*prompts, pairs, family, settings.sentences)
            for prompts in zip(texts, request.texts, strict=True)
        ]
        prior = (
            NoisePrior(settings.auto_corr, settings.kl, settings.rounds, settings.rolls) if settings.rounds else None
        )
        with engine.cost.counting(engine.unet):
            with engine.cost.stage("analysis"):
                change = joined([directions.direction(engine, one) for one in sets])
                trajectory = inverted(engine, request, texts, prior=prior)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                source = engine.encode_prompt(texts)
                negative = None if request.prompt.uncond is None else request.prompt
                # where the source prompt is its own negative, its guided output is the plain one: a row is enough
                lanes = {SOURCE: Lane(start, source)}
                if negative is not None and settings.negative == "given":
                    lanes[SOURCE] = Lane(start, with_negative(source, negative), request.guidance_scale)
                elif negative is not None:
                    negative = engine.encode_prompt(texts, texts)
                edit = with_negative(moved(source, change), negative)
                lanes[EDIT] = Lane(start.clone(), edit, request.guidance_scale)
                levels = trajectory.levels if settings.source_row == "held" else {}
                guide = CrossAttentionGuide(engine.unet, settings, levels, engine.cost)
                latents = denoise(engine, request, lanes, list(trajectory.levels), guide, source=trajectory)
        warnings = [] if all(texts) else ["pix2pix-zero without a source prompt has no words to compare"]
        if guide.non_finite:
            warnings.append(f"{guide.non_finite} steps had a non-finite gradient and were left unguided")
        return Outcome(latents, guide.trace, warnings)

    def row_forwards(self, steps: int, settings: Pix2PixZeroSettings) -> str:
        """One row a step for the source, or two with a negative prompt of its own; two and two for the edit."""
        if settings.xa_guidance == 0:
            return f"inversion {steps} + synthesis {2 * steps}"
        source = steps if settings.negative == "source" else 2 * steps
        guided = f"guidance {2 * steps} + synthesis {2 * steps} (+ {2 * steps} row backwards)"
        return f"inversion {steps} + source {source} + {guided}"


def joined(changes: list[Prompt]) -> Prompt:
    """Changes of batch 1 as one of batch B."""
    added = {name: torch.cat([one.added["cond"][name] for one in changes]) for name in changes[0].added.get("cond", {})}
    return Prompt(torch.cat([one.cond for one in changes]), None, {"cond": added} if added else {})


def moved(prompt: Prompt, change: Prompt) -> Prompt:
    """The conditional half plus a change of the same batch."""
    added = dict(prompt.added.get("cond", {}))
    added |= {name: added[name] + value for name, value in change.added.get("cond", {}).items()}
    return Prompt(prompt.cond + change.cond, None, {"cond": added} if added else {})


def with_negative(prompt: Prompt, negative: Prompt | None) -> Prompt:
    """The conditional half of one prompt with the unconditional half of another, if that has one."""
    if negative is None:
        return prompt
    return Prompt(prompt.cond, negative.uncond, {**negative.added, **{h: prompt.added[h] for h in prompt.added}})


class CrossAttentionGuide(SourceInjector):
    """Keeps the source lane's cross-attention maps of a step, and moves the edit's latents until its own come nearer.

    Args:
        levels: timestep -> latents (B, C, h, w) on which the source is held; empty = it is sampled.
        cost: counts backward rows.

    Attributes:
        trace: loss (mean over the batch) at each step. non_finite: steps whose gradient was thrown away.
    """

    def __init__(
        self, unet: nn.Module, settings: Pix2PixZeroSettings, levels: Mapping[int, Tensor], cost: Cost
    ) -> None:
        super().__init__(levels, ())
        self.settings, self.cost, self.amount = settings, cost, settings.xa_guidance
        self.layers = cross_attentions(unet)
        self.projections = projections(self.layers, "qk")
        self.trace: list[dict[str, float]] = []
        self.non_finite = 0

    def active(self, step: Step, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
        """All lanes; the source only if it is guided by."""
        return tuple(name for name in lanes if name != SOURCE or self.amount > 0)

    def before(self, step: Step, lanes: dict[str, Lane]) -> None:
        """Hold the source on its levels, if it has any."""
        if self.levels:
            super().before(step, lanes)

    def predict(self, step: Step, lanes: Mapping[str, Lane], denoiser: Denoiser) -> dict[str, Tensor]:
        """Guided outputs; the edit's is that of its moved latents, which its lane holds from now on."""
        source = {name: lane for name, lane in lanes.items() if name == SOURCE}
        edit, latents = lanes[EDIT], dict.fromkeys(lanes[EDIT].halves, lanes[EDIT].latents)
        outputs: dict[RowKey, Tensor] = {}
        if source:
            keys = row_keys(source)
            with tap(denoiser.unet, self.projections) as seen:
                outputs = denoiser.rows(source, keys, step.timestep)
                kept = self._maps(denoiser.unet, seen.pop_all(), row_places(source, keys))
            latents = self._moved(step, edit, denoiser, kept)
            edit.latents = latents[edit.halves[0]]
        probes = halves_apart(edit, latents)
        found = denoiser.rows(probes, row_keys(probes), step.timestep)
        outputs |= {(EDIT, half): found[half, "cond"] for half in edit.halves}
        return {n: lane.combine({h: outputs[n, h] for h in lane.halves}) for n, lane in lanes.items()}

    def _moved(
        self, step: Step, edit: Lane, denoiser: Denoiser, kept: Mapping[RowKey, Mapping[str, Tensor]]
    ) -> dict[Half, Tensor]:
        """Latents of each half after one gradient step."""
        shared = self.settings.steer == "shared"
        with torch.enable_grad(), frozen(denoiser.unet):
            first = edit.latents.detach().clone().requires_grad_(True)
            leaves = {h: first if shared else edit.latents.detach().clone().requires_grad_(True) for h in edit.halves}
            probes = halves_apart(edit, leaves)
            with tap(denoiser.unet, self.projections, cut_grad=True) as seen:
                denoiser.rows(probes, row_keys(probes), step.timestep)
                places = row_places(probes, row_keys(probes))
                own = self._maps(denoiser.unet, seen.pop_all(), places)
            loss = self._loss(edit, own, kept)
            unique = [first] if shared else list(leaves.values())
            slopes = torch.autograd.grad(loss.sum(), unique)
        self.cost.add_backward(edit.latents.shape[0] * len(edit.halves))
        self.trace.append({"timestep": step.timestep, "cross_attention": float(loss.detach().mean())})
        if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
            self.non_finite += 1
            slopes = tuple(torch.zeros_like(slope) for slope in slopes)
        each = slopes * len(edit.halves) if shared else slopes
        moved = zip(edit.halves, each, strict=True)
        return {half: edit.latents - self.amount * slope for half, slope in moved}

    def _loss(
        self, edit: Lane, own: Mapping[RowKey, Mapping[str, Tensor]], kept: Mapping[RowKey, Mapping[str, Tensor]]
    ) -> Tensor:
        """Squared difference of the maps (B,): sum over layers, pixels and tokens, mean over heads and halves."""
        total = []
        for half in edit.halves:
            source = kept[SOURCE, half if (SOURCE, half) in kept else "cond"]
            each = [(own[half, "cond"][layer] - source[layer]).square().sum((2, 3)).mean(1) for layer in self.layers]
            total.append(torch.stack(each).sum(0))
        return torch.stack(total).mean(0)

    def _maps(
        self, unet: nn.Module, seen: Mapping[str, Tensor], places: Mapping[RowKey, slice]
    ) -> dict[RowKey, dict[str, Tensor]]:
        """Attention maps (B, heads, pixels, tokens) of each row and layer."""
        whole = {}
        for layer in self.layers:
            attention: Any = unet.get_submodule(layer)
            q, k = (
                seen[site].float().unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                for site in projections([layer], "qk")
            )
            whole[layer] = (q @ k.transpose(-1, -2) * float(attention.scale)).softmax(-1)
        return {key: {layer: maps[rows] for layer, maps in whole.items()} for key, rows in places.items()}


def halves_apart(lane: Lane, latents: Mapping[Half, Tensor]) -> dict[str, Lane]:
    """A lane of its own, with only a conditional half, for each half of a lane."""
    apart = {}
    for half in lane.halves:
        added = lane.prompt.added.get(half)
        apart[str(half)] = Lane(latents[half], Prompt(lane.prompt.half(half), None, {"cond": added} if added else {}))
    return apart
