"""Plug-and-Play (Tumanyan et al., CVPR 2023, arXiv 2211.12572): features and self-attention of the inverted picture."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from freectl.denoising.injection import EDIT, SOURCE, Injection, SourceInjector
from freectl.denoising.inverters import SCHEMES, Inverter, Level
from freectl.denoising.sampler import Lane
from freectl.errors import InputError
from freectl.methods.base import Method, Outcome, Request, denoise, inverted
from freectl.methods.inverter import inverter
from freectl.methods.setting import inversion_level, setting
from freectl.models.engine import Engine
from freectl.models.families.base import Family


class PnPSettings(BaseModel):
    """Windows start with the first step. A silhouette as input asks for less: the paper then sets both to 0.5."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    feature_stop: float = setting(
        0.8,
        "tau_f: features are injected up to here",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 4; 40 of 50 steps in its code",
    )
    attention_stop: float = setting(
        0.5,
        "tau_A: queries and keys are injected up to here",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 4; 25 of 50 steps in its code",
    )
    inversion_steps: int | None = setting(
        None,
        "steps of the inversion; none = the sampling grid; must contain that grid",
        ge=1,
        le=1000,
        unit="steps",
        source="999 in its code; the sampling grid as in arXiv 2310.01506",
    )
    inversion_at: Level = inversion_level()
    inverter: Inverter = inverter()
    source_text: Literal["given", "empty"] = setting(
        "given",
        "text of inversion and source row: the run's source prompt, or none at all",
        unit="choice",
        source="empty in its code; given is ours",
    )


class PnP(Method[PnPSettings]):
    """Decoder features f_t and self-attention Q_t, K_t of the inverted picture replace the edit's.

    On transformers, which have no residual features, queries and keys of the picture's tokens in all attentions, in the
    first 0.2 of the steps (Shin et al., arXiv 2508.07519): the window attention_stop is the one knob.
    Published for Stable Diffusion with 50 steps, guidance 7.5 and, as negative prompt, "ugly, blurry, black, low res,
    unrealistic".
    """

    name = "pnp"
    summary = "inject residual features and self-attention queries and keys of the inverted picture"
    paper = "Tumanyan et al., Plug-and-Play Diffusion Features, CVPR 2023, arXiv 2211.12572"
    equations = """
x_T^g, ..., x_0^g: DDIM inversion of the input;  x_T = x_T^g
[f_t^l, Q_t^l, K_t^l] of one forward eps(x_t^g, t, source)
eps = eps(x_t, t, prompt;  f_t^l <- source's while t is in the first tau_f of the steps, l = 2nd residual block,
                           Q_t^l, K_t^l <- source's while t is in the first tau_A, l = decoder self-attentions behind)
for both halves of eps_u + s (eps_c - eps_u)
"""
    settings = PnPSettings
    presets = {  # noqa: RUF012
        "default": {},
        "published": {"inversion_steps": 999, "inversion_at": "upper", "source_text": "empty"},
    }
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: PnPSettings) -> Outcome:
        """Edit the request's pictures; see `PnPSettings`."""
        feature, attention = engine.family.pnp_sites(engine.network)
        features = () if feature is None else (feature,)
        injections = [
            Injection(features, stop=settings.feature_stop),
            Injection(attention, stop=settings.attention_stop),
        ]
        texts = request.source_prompts if settings.source_text == "given" else [""] * len(request.images)
        with engine.cost.counting(engine.network):
            with engine.cost.stage("analysis"):
                at, how = settings.inversion_at, settings.inverter
                trajectory = inverted(engine, request, texts, settings.inversion_steps, evaluate_at=at, inverter=how)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                source = engine.encode_prompt(texts)
                lanes = {
                    EDIT: Lane(start, request.prompt, request.guidance_scale),
                    SOURCE: Lane(trajectory.start, source),
                }
                controller = SourceInjector(trajectory.levels, injections)
                return Outcome(denoise(engine, request, lanes, list(trajectory.levels), controller, source=trajectory))

    def resolved(self, settings: PnPSettings, family: Family, *, appearance_image: bool = False) -> PnPSettings:
        """The family's own windows where none are given.

        Raises:
            InputError: a window for features, which the family does not have.
        """
        own = family.pnp
        if settings.feature_stop and "feature_stop" in settings.model_fields_set and own.get("feature_stop") == 0:
            found = f"{settings.feature_stop:g} on a {family.name} model, which has no residual blocks"
            raise InputError("--set feature_stop", found, "0; attention_stop is the one window there")
        missing = {name: value for name, value in own.items() if name not in settings.model_fields_set}
        return super().resolved(settings.model_copy(update=missing), family)

    def row_forwards(self, steps: int, settings: PnPSettings) -> str:
        """Two rows a step, and the source's while something is injected."""
        window = Injection((), stop=max(settings.feature_stop, settings.attention_stop))
        inversion = steps if settings.inversion_steps is None else settings.inversion_steps
        inversion = SCHEMES[settings.inverter].rows(inversion)
        return f"inversion {inversion} + synthesis {2 * steps + window.steps(steps)}"
