"""Plug-and-Play (Tumanyan et al., CVPR 2023, arXiv 2211.12572): features and self-attention of the inverted picture."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from freectl.engine import Engine
from freectl.errors import InputError
from freectl.injection import EDIT, SOURCE, Injection, SourceInjector, projections, self_attentions
from freectl.methods.base import Method, Outcome, Request, denoise, inverted
from freectl.sampler import Lane, Prompt


class PnPSettings(BaseModel):
    """Windows start with the first step. A silhouette as input asks for less: the paper then sets both to 0.5."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    feature_stop: float = Field(0.8, ge=0, le=1, description="tau_f: features are injected up to this share of steps")
    attention_stop: float = Field(0.5, ge=0, le=1, description="tau_A: queries and keys are, up to this share of steps")
    inversion_steps: int | None = Field(
        None, ge=1, le=1000, description="steps of the inversion; None = the sampling grid; must contain that grid"
    )
    source_text: Literal["given", "empty"] = Field(
        "given", description="text of inversion and source row: the run's source prompt, or none at all"
    )


class PnP(Method[PnPSettings]):
    """Decoder features f_t and self-attention Q_t, K_t of the inverted picture replace the edit's.

    Published for Stable Diffusion with 50 steps, guidance 7.5 and, as negative prompt, "ugly, blurry, black, low res,
    unrealistic".
    """

    name = "pnp"
    summary = "inject residual features and self-attention queries and keys of the inverted picture"
    paper = "Tumanyan et al., Plug-and-Play Diffusion Features, CVPR 2023, arXiv 2211.12572"
    settings = PnPSettings
    presets = {"default": {}, "published": {"inversion_steps": 999, "source_text": "empty"}}  # noqa: RUF012
    needs = ("image", "inversion")

    def run(self, engine: Engine, request: Request, settings: PnPSettings) -> Outcome:
        """Edit the request's pictures; see `PnPSettings`."""
        feature, attention = pnp_sites(engine.unet, engine.family.structure_block)
        injections = [
            Injection((feature,), stop=settings.feature_stop),
            Injection(attention, stop=settings.attention_stop),
        ]
        texts = request.source_prompts if settings.source_text == "given" else [""] * len(request.images)
        with engine.cost.counting(engine.unet):
            with engine.cost.stage("analysis"):
                trajectory = inverted(engine, request, texts, settings.inversion_steps)
            with engine.cost.stage("synthesis"):
                start = trajectory.start if request.latents is None else request.latents
                source = Prompt(engine.encode_prompt(texts).cond)
                lanes = {
                    EDIT: Lane(start, request.prompt, request.guidance_scale),
                    SOURCE: Lane(trajectory.start, source),
                }
                controller = SourceInjector(trajectory.levels, injections)
                return Outcome(denoise(engine, request, lanes, list(trajectory.levels), controller))

    def row_forwards(self, steps: int, settings: PnPSettings) -> str:
        """Two rows a step, and the source's while something is injected."""
        window = Injection((), stop=max(settings.feature_stop, settings.attention_stop))
        inversion = steps if settings.inversion_steps is None else settings.inversion_steps
        return f"inversion {inversion} + synthesis {2 * steps + window.steps(steps)}"


def pnp_sites(unet: nn.Module, block: str) -> tuple[str, tuple[str, ...]]:
    """The feature site and the query and key sites.

    Features: the second residual block of the first decoder block with attention, before the skip is added.
    Attention: every decoder self-attention behind it. In Stable Diffusion these are up_blocks.1.resnets.1 and the
    decoder's layers 4 to 11, as published.

    Args:
        block: the first decoder block with attention, `Family.structure_block`.

    Raises:
        InputError: the UNet has no such layers.
    """
    decoder = [name for name in self_attentions(unet) if name.startswith("up_blocks.")]
    first = [name for name in decoder if name.startswith(f"{block}.attentions.0.")]
    layers = decoder[decoder.index(first[-1]) + 1 :] if first else []
    if not layers:
        raise InputError("--method", "pnp on a UNet without two self-attentions in its decoder", "another model")
    return f"{block}.resnets.1.conv2", projections(layers, "qk")
