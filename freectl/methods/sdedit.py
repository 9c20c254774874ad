"""SDEdit (Meng et al., ICLR 2022, arXiv 2108.01073), as diffusers' img2img: noise to the middle, then sample."""

from pydantic import BaseModel, ConfigDict

from freectl.denoising.sampler import Lane
from freectl.methods.base import Method, Outcome, Request, denoise
from freectl.methods.setting import setting
from freectl.models.engine import Engine


class SDEditSettings(BaseModel):
    """One knob trades structure against the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    strength: float = setting(
        0.75,
        "t0: share of the schedule that is run; 0 returns the input",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 3; 0.75 and 0.85 as FreeControl's baselines (arXiv 2312.07536, table 1)",
    )


class SDEdit(Method[SDEditSettings]):
    """x_t0 = sqrt(abar) x0 + sqrt(1 - abar) eps, then ordinary sampling from t0."""

    name = "sdedit"
    summary = "noise the picture to an intermediate step, then sample with the prompt (img2img)"
    paper = "Meng et al., SDEdit, ICLR 2022, arXiv 2108.01073"
    equations = """
x_t0 = sqrt(abar_t0) x_0 + sqrt(1 - abar_t0) eps,  t0 = the last int(N * strength) of N steps
then plain sampling from t0 with eps = eps_u + s (eps_c - eps_u)
"""
    settings = SDEditSettings
    presets = {"default": {}, "0.5": {"strength": 0.5}, "0.85": {"strength": 0.85}}  # noqa: RUF012

    def run(self, engine: Engine, request: Request, settings: SDEditSettings) -> Outcome:
        """Edit the request's pictures."""
        with engine.cost.counting(engine.network), engine.cost.stage("synthesis"):
            path = engine.path(request.steps)
            timesteps = path.times
            kept = timesteps[len(timesteps) - min(int(request.steps * settings.strength), request.steps) :]
            clean = engine.encode_images(request.images)
            if not kept:
                return Outcome(clean)
            noise = request.latents if request.latents is not None else engine.noise(request.size, request.generators)
            start = path.noised(clean, noise, kept[0])
            lanes = {"edit": Lane(start, request.prompt, request.guidance_scale)}
            return Outcome(denoise(engine, request, lanes, kept))

    def row_forwards(self, steps: int, settings: SDEditSettings) -> str:
        """Two rows a step that is run."""
        return f"synthesis {2 * min(int(steps * settings.strength), steps)}"
