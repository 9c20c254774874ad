"""Settings of FreeControl, closed and frozen; the presets reproduce the two published forms and ours."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from freectl.denoising.inversion import Level
from freectl.errors import InputError
from freectl.methods.setting import inversion_level, setting
from freectl.models.families.base import Family


class FreeControlSettings(BaseModel):
    """What shapes the guidance (arXiv 2312.07536; equation numbers of that paper's section 3).

    By default a weight means the same at any step count and any picture size: what it means at 200 steps, the published
    number, and at the size the model was trained at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    structure_weight: float | None = setting(
        None,
        "lambda_s: strength of the structure energy; none = the model family's",
        ge=0,
        le=100_000,
        unit="factor",
        source="section 4: 400 to 1000; 800 in the code, 600 in its interface",
    )
    appearance_weight: float | None = setting(
        None,
        "lambda_a: strength of the appearance energy; none = the model family's",
        ge=0,
        le=100_000,
        unit="factor",
        source="section 4: 0.2 lambda_s; 0.05 or 0.1 lambda_s in the code",
    )
    window_start: float = setting(
        0.0, "guidance starts here", ge=0, le=1, unit="share of steps", source="0 in paper and code"
    )
    window_stop: float = setting(
        0.6,
        "guidance stops here",
        ge=0,
        le=1,
        unit="share of steps",
        source="section 4: 120 of 200 steps; 80 or 120 in the code",
    )
    window_level: float | None = setting(
        None,
        "sigma = s / (a + s) down to which guidance holds, in place of window_stop; none = the model family's, if any",
        ge=0,
        le=1,
        unit="noise level",
        source="ours: where the published window ends, 0.54, on flows, whose steps lie elsewhere",
    )
    warmup: float = setting(
        0.05,
        "weights grow linearly from 0 over these steps",
        ge=0,
        le=1,
        unit="share of steps",
        source="the code: 10 of 200 steps",
    )
    components: int | None = setting(
        None,
        "N_b: semantic components that carry structure; none = the model family's",
        ge=1,
        le=1024,
        unit="components",
        source="section 4: 64",
    )
    appearance_components: int = setting(
        2, "N_a: components that carry appearance", ge=1, le=64, unit="components", source="section 4: 2"
    )
    normalize: Literal["minmax", "none"] = setting(
        "minmax", "scale each coordinate to [0, 1] over the picture", unit="choice", source="minmax in the code"
    )
    appearance_gate: Literal["gated", "sigmoid"] = setting(
        "gated",
        "weights of appearance vectors: coordinates above a threshold, or their sigmoid",
        unit="choice",
        source="eq. 5: sigmoid; gated in the code",
    )
    appearance_threshold: float = setting(
        0.5, "gate of the appearance weights", ge=0, le=1, unit="scaled coordinate", source="the code: 0.5"
    )
    reduction: Literal["mean", "sum"] = setting(
        "mean", "squares over components and channels", unit="choice", source="eqs. 4 and 6: sum; mean in the code"
    )
    background_weight: float = setting(
        10.0, "w: weight of the background term where there is a mask", ge=0, unit="factor", source="the code: 10"
    )
    background_area: Literal["unmasked", "all"] = setting(
        "unmasked",
        "tokens that the background term averages over",
        unit="choice",
        source="eq. 4: unmasked; all in the code",
    )
    update: Literal["official", "paper"] = setting(
        "official",
        "official: gradient step on x_{t-1}; paper: added to eps",
        unit="choice",
        source="eq. 7: paper; official in the code",
    )
    step_scaling: Literal["invariant", "per_step"] = setting(
        "invariant",
        "invariant: weights mean what they mean at 200 steps; per_step: they hold for each step",
        unit="choice",
        source="per_step in the code; invariant is ours",
    )
    size_scaling: Literal["invariant", "none"] = setting(
        "invariant",
        "invariant: weights mean what they mean at the model's own picture size",
        unit="choice",
        source="none in the code; invariant is ours",
    )
    start: Literal["auto", "inverted", "noise"] = setting(
        "auto",
        "x_T: the inverted input, or noise; auto = noise under conditions, else inverted",
        unit="choice",
        source="section 4.3: inverted for image to image",
    )
    start_noise: float = setting(
        0.0,
        "share of fresh noise in an inverted x_T: 0 = none, 1 = noise alone",
        ge=0,
        le=1,
        unit="share of variance",
        source="0 in paper and code; mixing is ours",
    )
    inversion_steps: int | None = setting(
        None,
        "steps of the inversion; none = the sampling grid; must contain that grid",
        ge=1,
        le=1000,
        unit="steps",
        source="the code: 999",
    )
    inversion_at: Level = inversion_level()
    layers: Literal["all", "first"] = setting(
        "all",
        "self-attentions of the family's block that are used",
        unit="choice",
        source="section 4: first; all in the code",
    )
    seed_features: Literal["sampling", "inversion"] = setting(
        "sampling",
        "when features of seed pictures are recorded",
        unit="choice",
        source="section 3.1: inversion; sampling in the code",
    )
    seed_steps: int = setting(
        50,
        "steps with which seed pictures are sampled; runs take the basis of the nearest timestep",
        ge=1,
        le=1000,
        unit="steps",
        source="paper and code: 200",
    )
    seeds: int = setting(
        20, "N_s: seed pictures that a basis is made of", ge=1, le=1000, unit="pictures", source="section 4: 20"
    )
    bases: str | None = setting(
        None,
        "bases in place of the concept's own: a concept or key of `freectl bases list`, a file, or mini",
        min_length=1,
        unit="text",
        source="supplement: bases of a related concept; by name is ours",
    )


def resolved(settings: FreeControlSettings, family: Family, *, appearance_image: bool = False) -> FreeControlSettings:
    """The settings with every None replaced by the family's value.

    A window in steps that was asked for stays one. A family that does without a sibling still follows a given
    appearance picture, as strongly as the structure.

    Raises:
        InputError: the update does not exist on the family's path.
    """
    if family.flow and settings.update == "paper":
        raise InputError("--set update", "paper on a flow, at whose first step it is infinite", "official")
    family_values = dict(family.freecontrol)
    if "window_stop" in settings.model_fields_set:
        family_values.pop("window_level", None)
    if appearance_image and not family_values["appearance_weight"]:
        family_values["appearance_weight"] = family_values["structure_weight"]
    missing = {name: value for name, value in family_values.items() if getattr(settings, name) is None}
    return settings.model_copy(update=missing)


PRESETS: dict[str, dict] = {
    "default": {},
    "official": {
        "structure_weight": 600.0,
        "appearance_weight": 60.0,
        "components": 64,
        "window_stop": 0.6,
        "background_area": "all",
        "step_scaling": "per_step",
        "size_scaling": "none",
        "inversion_steps": 999,
        "inversion_at": "upper",
        "seed_steps": 200,
    },
    "paper": {
        "structure_weight": 600.0,
        "appearance_weight": 120.0,
        "components": 64,
        "window_stop": 0.6,
        "warmup": 0.0,
        "normalize": "none",
        "appearance_gate": "sigmoid",
        "reduction": "sum",
        "update": "paper",
        "step_scaling": "per_step",
        "size_scaling": "none",
        "inversion_steps": 999,
        "layers": "first",
        "seed_features": "inversion",
        "seed_steps": 200,
    },
}
"""Named settings; anything not named is the default.

`official` is the published code with its interface's weights (freecontrol, commit 5ac495f), `paper` the equations of
section 3 with the values of section 4; both are meant for 200 steps. The paper inverts in 1000 steps: with Stable
Diffusion's schedule, whose clean picture has the noise level of timestep 0, the first of them changes nothing, and the
other 999 are these. Neither publication fixes the seeds' noise; the code draws the condition's latents from the VAE's
posterior without a seed, where its mode is taken here.
"""
EQUATIONS = """
F_t: self-attention keys;  B_t, mu_t: first N_b principal directions and mean of F_t over N_s seed pictures
S_t = (F_t - mu_t) B_t^T, each component scaled to [0, 1];  S_t^g of the inverted input or condition, m its mask
g_s = sum(m |S_t - S_t^g|^2) / sum(m) + w sum((1 - m) max(S_t - tau, 0)^2) / sum(1 - m)
  tau = maximum of S_t^g where m = 0, per component
v_k = sum(h(S_t^(k)) F_t) / sum(h(S_t^(k))), h(x) = x where x > 0.5 ("gated") or sigmoid(x);
  g_a = mean over k <= N_a of |v_k - v_k of the sibling|^2
x_T = sqrt(1 - a) inverted + sqrt(a) noise, a = start_noise, or noise under conditions
eps = eps_u + s (eps_c - eps_u);  gradient g = d(lambda_s g_s + lambda_a g_a) / d x_t
window: a share of the steps, or on flows sigma >= window_level, where weights scale with the sum of s s' in it
update "official": x_{t-1} -= sqrt(1 - abar_t) sqrt(1 - abar_{t-1}) g;  update "paper": eps += g
"""
"""Section 3 of arXiv 2312.07536 as it is computed here."""
