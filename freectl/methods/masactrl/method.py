"""MasaCtrl (Cao et al., ICCV 2023, arXiv 2304.08465): mutual self-attention with the inverted picture."""

from collections.abc import Sequence

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor

from freectl.denoising.attention_layers import AttentionLayer, picture_sites
from freectl.denoising.injection import EDIT, SOURCE, Injection, SourceInjector
from freectl.denoising.inverters import SCHEMES, Inverter, Level
from freectl.denoising.sampler import Lane
from freectl.errors import InputError
from freectl.methods.base import Method, Outcome, Request, denoise, inverted, source_beside
from freectl.methods.inverter import inverter
from freectl.methods.local_edit import changing
from freectl.methods.masactrl.mask import MaskedInjector, positions_of
from freectl.methods.pix2pix_zero.directions import parse_pairs
from freectl.methods.setting import inversion_level, setting
from freectl.models.engine import Engine


class MasaCtrlSettings(BaseModel):
    """Later steps and layers leave more of the layout to the prompt.

    The defaults are the published ones: step 4 of 50, layer 10 of 16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: float = setting(
        0.08,
        "S: the steps that run freely before",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 3.2; step 4 of 50",
    )
    layer_start: float = setting(
        0.625,
        "L: the network's self-attentions, in order, that are left as they are",
        ge=0,
        le=1,
        unit="share of layers",
        source="section 3.2; layer 10 of 16",
    )
    words: str = setting(
        "",
        "source=target words, such as fox=cat: their places then read each other, the rest the rest; empty: no masks",
        unit="text",
        source="mask-guided mutual self-attention",
    )
    threshold: float = setting(
        0.1,
        "share of the scaled attention above which a place is the object's",
        ge=0,
        le=1,
        unit="share",
        source="its code",
    )
    inversion_at: Level = inversion_level()
    inverter: Inverter = inverter()
    inversion_guidance: float = setting(
        1.0,
        "guidance scale of the source prompt while inverting, against an empty text; 1 = none",
        ge=1,
        le=100,
        unit="factor",
        source="7.5 in its code; 1 is arXiv 2310.01506's",
    )

    @field_validator("words")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_pairs(text)
        return text


class MasaCtrl(Method[MasaCtrlSettings]):
    """From step S and layer L on, the edit's queries attend to the keys and values of the inverted picture.

    Each half of classifier-free guidance takes those of the source's own half. Published for Stable Diffusion 1.4 with
    50 steps and guidance 7.5, real pictures with an empty source prompt.
    """

    name = "masactrl"
    summary = "let self-attention read keys and values of the inverted picture"
    paper = "Cao et al., MasaCtrl, ICCV 2023, arXiv 2304.08465"
    equations = """
x_T^s, ..., x_0^s: DDIM inversion of the input;  x_T = x_T^s
from step S and self-attention layer L on:  Attention(Q, K_s, V_s) = softmax(Q K_s^T / sqrt(d)) V_s
before:                                     Attention(Q, K, V)
with words or --mask:  a place of the object in the edit reads only the source's object, any other only the rest
Q of the edit, K_s and V_s of eps(x_t^s, t, source), each half of eps_u + s (eps_c - eps_u) from the source's own,
with one negative prompt for both
"""
    settings = MasaCtrlSettings
    presets = {"default": {}, "published": {"inversion_at": "upper", "inversion_guidance": 7.5}}  # noqa: RUF012
    needs = ("image", "inversion")
    inputs = ("mask",)

    def run(self, engine: Engine, request: Request, settings: MasaCtrlSettings) -> Outcome:
        """Edit the request's pictures; see `MasaCtrlSettings`."""
        layers = shared_layers(engine.family.self_layers(engine.network), settings.layer_start)
        texts, pairs = request.source_prompts, parse_pairs(settings.words)
        positions = positions_of(engine.token_positions, pairs, texts, request.texts) if pairs else {}
        if isinstance(request.mask, str):
            raise InputError("--mask", f"{request.mask} with masactrl", "a picture, or --set words=source=target")
        if request.mask is not None:
            positions.pop(SOURCE, None)
        with engine.cost.counting(engine.network):
            with engine.cost.stage("analysis"):
                at, scale = settings.inversion_at, settings.inversion_guidance
                by = settings.inverter
                trajectory = inverted(engine, request, texts, evaluate_at=at, guidance_scale=scale, inverter=by)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                lanes = {
                    EDIT: Lane(start, request.prompt, request.guidance_scale),
                    SOURCE: Lane(trajectory.start, source_beside(engine, request), request.guidance_scale),
                }
                injection = Injection(picture_sites(layers, "kv"), start=settings.start)
                controller = SourceInjector(trajectory.levels, [injection])
                if pairs or request.mask is not None:
                    of_words = engine.family.word_layers(engine.network)
                    how = (layers, settings.start, of_words, positions, settings.threshold)
                    controller = MaskedInjector(trajectory.levels, *how, given_foreground(request, start))
                return Outcome(denoise(engine, request, lanes, list(trajectory.levels), controller, source=trajectory))

    def row_forwards(self, steps: int, settings: MasaCtrlSettings) -> str:
        """Two rows a step, and the source's two from step S on."""
        shared = Injection((), start=settings.start).steps(steps) if settings.layer_start < 1 else 0
        once = SCHEMES[settings.inverter].rows(steps)
        inversion = f"{once}" if settings.inversion_guidance == 1 else f"{2 * once} (half without a source prompt)"
        without = f"{2 * steps + shared} where source and negative prompt are equal"
        return f"inversion {inversion} + synthesis {2 * steps + 2 * shared} ({without})"


def given_foreground(request: Request, latents: Tensor) -> Tensor | None:
    """The request's mask picture as (B, h, w) of 0 and 1: cells of which any pixel is white."""
    if not isinstance(request.mask, Image.Image):
        return None
    outside = ImageOps.invert(request.mask.convert("L"))
    found = changing([outside], (latents.shape[-2], latents.shape[-1]), latents.device)[:, 0]
    return found.expand(latents.shape[0], -1, -1)


def shared_layers(layers: Sequence[AttentionLayer], layer_start: float) -> list[AttentionLayer]:
    """Of layers in execution order those behind the first share `layer_start`."""
    return [layer for i, layer in enumerate(layers) if i >= layer_start * len(layers) - 1e-9]
