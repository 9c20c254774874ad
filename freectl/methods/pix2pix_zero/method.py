"""pix2pix-zero (Parmar et al., SIGGRAPH 2023, arXiv 2302.03027): an edit direction, held by cross-attention."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, field_validator

from freectl.denoising.grad import Checkpointing, checkpointed, is_wanted
from freectl.denoising.injection import EDIT, SOURCE
from freectl.denoising.inverters import Level
from freectl.denoising.noise_prior import NoisePrior
from freectl.denoising.sampler import Lane, Prompt
from freectl.methods.base import Method, Outcome, Request, denoise, inverted, with_negative
from freectl.methods.pix2pix_zero import directions
from freectl.methods.pix2pix_zero.guide import CrossAttentionGuide
from freectl.methods.setting import blocks_run_again, inversion_level, setting
from freectl.models.engine import Engine


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
    inversion_at: Level = inversion_level()
    checkpointing: Checkpointing = blocks_run_again("all is kept in its code")

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
        "published": {"sentences": 1000, "steer": "halves", "inversion_at": "upper"},
    }
    needs = ("image", "inversion", "gradient")

    def run(self, engine: Engine, request: Request, settings: Pix2PixZeroSettings) -> Outcome:
        """Edit the request's pictures; see `Pix2PixZeroSettings`."""
        texts = request.source_prompts
        pairs = directions.parse_pairs(settings.direction)
        family = engine.family.words
        sets = [
            directions.sentence_sets(*prompts, pairs, family, settings.sentences)
            for prompts in zip(texts, request.texts, strict=True)
        ]
        prior = (
            NoisePrior(settings.auto_corr, settings.kl, settings.rounds, settings.rolls) if settings.rounds else None
        )
        with engine.cost.counting(engine.network):
            with engine.cost.stage("analysis"):
                change = joined([directions.direction(engine, one) for one in sets])
                trajectory = inverted(engine, request, texts, prior=prior, evaluate_at=settings.inversion_at)
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
                shared = settings.steer == "shared"
                layers = [layer.name for layer in engine.family.cross_layers(engine.network)]
                guide = CrossAttentionGuide(layers, settings.xa_guidance, shared, levels, engine.cost)
                with checkpointed(engine.network, is_wanted(settings.checkpointing, engine.device)):
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
