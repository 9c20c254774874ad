"""Prompt-to-Prompt (Hertz et al., ICLR 2023, arXiv 2208.01626): attention maps of the source prompt in the edit."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from torch import Tensor

from freectl.denoising.attention_layers import picture_sites
from freectl.denoising.attention_maps import TextSequence
from freectl.denoising.injection import EDIT, SOURCE, Injection
from freectl.denoising.inverters import SCHEMES, Inverter, Level
from freectl.denoising.sampler import Lane, Prompt
from freectl.errors import InputError
from freectl.methods.base import Method, Outcome, Request, denoise, inverted, with_negative
from freectl.methods.inverter import inverter
from freectl.methods.p2p.align import Alignment, Rest, align, explained, joined, kind_of, parse_weights
from freectl.methods.p2p.blend import LocalBlend, parse_blend
from freectl.methods.p2p.maps import MapInjector
from freectl.methods.p2p.null_text import NullTextSettings, null_text
from freectl.methods.setting import inversion_level, setting
from freectl.models.engine import Engine


class P2PSettings(BaseModel):
    """Longer windows keep more of the layout. Both windows start with the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edit: Literal["auto", "replace", "refine"] = setting(
        "auto",
        "word for word, or keep common tokens and let new ones be; auto: replace at equal counts",
        unit="choice",
        source="section 3.2; auto is ours",
    )
    rest: Rest = setting(
        "shifted",
        "maps of tokens behind the words: of those as far behind the source's words, or of those at the same places",
        unit="choice",
        source="in-place in its code, in replace from the last word that differs; shifted is ours",
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
    cross_words: str = setting(
        "",
        "word=share, comma separated, each 0 to 1: cross_stop of single words of the prompt",
        unit="share of steps",
        source="its code: per-word schedules",
    )
    blend: str = setting(
        "",
        "source words=target words, comma separated, such as fox=cat: change the picture only where they are",
        unit="text",
        source="section 4, local editing",
    )
    blend_start: float = setting(
        0.2, "nothing is blended before", ge=0, le=1, unit="share of steps", source="its code: from 20 % of the steps"
    )
    blend_threshold: float = setting(
        0.3, "attention above this share of its maximum counts", ge=0, le=1, unit="share of maximum", source="its code"
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
    inversion_at: Level = inversion_level()
    inverter: Inverter = inverter()
    null_steps: int = setting(
        10,
        "null-text: Adam's steps at each timestep at most; fewer where the error is small",
        ge=0,
        le=1000,
        unit="steps",
        source="arXiv 2211.09794; its code",
    )
    null_rate: float = setting(
        0.01, "null-text: Adam's learning rate at the first timestep", gt=0, le=1, unit="rate", source="its code"
    )

    @field_validator("reweight", "cross_words", "blend")
    @classmethod
    def _readable(cls, text: str, info: ValidationInfo) -> str:
        if info.field_name == "blend":
            parse_blend(text)
        else:
            parse_weights(text, *((0, 1) if info.field_name == "cross_words" else (-10, 10)))
        return text

    @property
    def last_cross(self) -> float:
        """Share of the steps up to which any token's cross-attention is edited."""
        return max([self.cross_stop, *parse_weights(self.cross_words, 0, 1).values()])


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
local blend, behind blend_start of the steps:  x_t <- m x_t + (1 - m) x_t^source,  m = m_source or m_edit,
  m_k = [ maxpool(mean over steps and layers of M_k at the words) / its maximum > threshold ]
edits of maps act on the conditional half of eps_u + s (eps_c - eps_u)
"""
    settings = P2PSettings
    presets = {  # noqa: RUF012
        "default": {},
        "published": {"inversion": "ddim", "inversion_at": "upper", "rest": "in-place"},
        "null-text": {"inversion": "null-text"},
        "pie-bench": {"cross_stop": 0.4, "self_stop": 0.6, "inversion_at": "upper", "rest": "in-place"},
    }
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: P2PSettings) -> Outcome:
        """Edit the request's pictures; see `P2PSettings`."""
        if engine.text.pieces > 1:
            found = "texts in several pieces with p2p, which aligns the words of one"
            raise InputError("--long-prompts", found, f"up to {engine.text.reads} tokens")
        texts = request.source_prompts
        tokens = request.prompt.cond.shape[1]
        alignment = aligned(engine.text.sequences, texts, request.texts, settings).lengthened(tokens)
        blend = self._blend(engine, request, settings)
        crossed = engine.family.cross_layers(engine.network)
        injections = [
            Injection(picture_sites(engine.family.self_layers(engine.network), "qk"), stop=settings.self_stop),
            Injection(tuple(layer.name for layer in crossed), stop=settings.last_cross),
        ]
        with engine.cost.counting(engine.network):
            guided = request.prompt.uncond is not None
            nulls: Mapping[float, Tensor] = {}
            with engine.cost.stage("analysis"):
                if guided and settings.inversion == "null-text":
                    at, inverter = settings.inversion_at, settings.inverter
                    how = NullTextSettings(settings.null_steps, settings.null_rate, at, inverter)
                    trajectory, nulls = null_text(engine, request, texts, how)
                else:
                    at, how_up = settings.inversion_at, settings.inverter
                    trajectory = inverted(engine, request, texts, evaluate_at=at, inverter=how_up)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                prompt, source = request.prompt, engine.encode_prompt(texts)
                if guided and settings.inversion == "ddim":
                    source = with_negative(source, prompt)
                if guided and settings.inversion == "negative-prompt":
                    # the source's own halves are then equal, and one row is enough
                    added = {**prompt.added, "uncond": source.added["cond"]} if source.added else prompt.added
                    prompt = Prompt(prompt.cond, source.cond, added)
                lanes = {
                    EDIT: Lane(start, prompt, request.guidance_scale),
                    SOURCE: Lane(start, source, request.guidance_scale),
                }
                # of the source only the conditional row is read; sampled with its nulls it would visit these levels too
                levels = trajectory.levels if settings.inversion in ("direct", "null-text") else {}
                controller = MapInjector(
                    levels,
                    injections,
                    alignment.to(engine.device),
                    settings.self_area,
                    crossed,
                    nulls=nulls,
                    blend=blend,
                    below=trajectory.below if levels else None,
                    observer=self.observer,
                    observed=[layer.name for layer in engine.family.word_layers(engine.network)],
                )
                latents = denoise(engine, request, lanes, list(trajectory.levels), controller, source=trajectory)
        return Outcome(latents, warnings=[] if all(texts) else ["p2p without a source prompt has no words to align"])

    def row_forwards(self, steps: int, settings: P2PSettings) -> str:
        """Two rows a step, and the source's while maps are taken from it: two if it is sampled with guidance."""
        stop = 1.0 if settings.blend else max(settings.last_cross, settings.self_stop)
        shared = Injection((), stop=stop).steps(steps)
        each = 2 if settings.inversion == "ddim" else 1
        fitting = ""
        if settings.inversion == "null-text":
            most, least = (settings.null_steps + 2) * steps, 2 * steps
            backwards = f"{settings.null_steps * steps} row backwards"
            fitting = f"null-text {most} (at most, with {backwards}; at least {least} with none) + "
        return f"inversion {SCHEMES[settings.inverter].rows(steps)} + {fitting}synthesis {2 * steps + each * shared}"

    def alignment(self, tokenizer: Any, source: str, target: str, settings: P2PSettings) -> dict[str, Any]:
        """What is done with the maps of each token of the target prompt."""
        sequence = TextSequence(tokenizer, tokenizer.model_max_length)
        alignment = aligned([sequence], [source], [target], settings)
        kind = kind_of(settings.edit, source, target)
        return {"edit": kind, "tokens": explained(tokenizer, source, target, alignment)}

    def _blend(self, engine: Engine, request: Request, settings: P2PSettings) -> LocalBlend | None:
        words = parse_blend(settings.blend)
        if not words:
            return None
        return LocalBlend(
            engine.token_positions,
            words,
            request.source_prompts,
            request.texts,
            [layer.name for layer in engine.family.word_layers(engine.network)],
            start=settings.blend_start,
            threshold=settings.blend_threshold,
        )


def aligned(
    sequences: Sequence[TextSequence], sources: Sequence[str], targets: Sequence[str], settings: P2PSettings
) -> Alignment:
    """`align` of each stretch of the text as the settings say."""
    how = (settings.edit, settings.reweight, settings.cross_stop, settings.cross_words, settings.rest)
    return joined([align(one, sources, targets, *how) for one in sequences])
