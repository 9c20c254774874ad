"""Settings of FreeControl, closed and frozen; the presets reproduce the two published forms and ours."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from freectl.denoising.grad import Checkpointing
from freectl.denoising.inverters import Inverter, Level
from freectl.errors import InputError
from freectl.methods.inverter import check_inverter, inverter
from freectl.methods.setting import blocks_run_again, inversion_level, setting
from freectl.models.families.base import Family
from freectl.semantics.energies import Normalize

STRENGTH = 0.6
"""Of our update by default."""
PUBLISHED_WEIGHT = 600.0
"""lambda_s of the published interface."""


class FreeControlSettings(BaseModel):
    """What shapes the guidance (arXiv 2312.07536; equation numbers of that paper's section 3).

    How firmly structure holds is `structure_strength` with our update, whose steps have a length of their own, alike
    for every model, number of steps, picture size and path; with the published updates it is `structure_weight`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    structure_strength: float = setting(
        STRENGTH,
        "how firmly structure holds: 0 not at all, 1 as firmly as words of another object or style can bear; "
        "of the update relative alone",
        ge=0,
        le=1,
        unit="share",
        source="ours",
    )
    structure_weight: float | None = setting(
        None,
        f"lambda_s: weight of the structure energy; none = {PUBLISHED_WEIGHT:g}; of the published updates alone",
        ge=0,
        le=100_000,
        unit="factor",
        source="section 4: 400 to 1000; 800 in the code, 600 in its interface",
    )
    appearance_weight: float | None = setting(
        None,
        "lambda_a: weight of the appearance energy, beside a structure energy of weight 1 with the update relative; "
        "none = the model family's share of the structure's",
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
    features: Literal["keys", "block"] | None = setting(
        None,
        "what is compared: self-attention keys of the tapped block, or also its queries and its residual blocks' "
        "outputs; none = the model family's",
        unit="choice",
        source="section 4: keys; block is ours",
    )
    components: int = setting(
        64, "N_b: semantic components that carry structure", ge=1, le=1024, unit="components", source="section 4: 64"
    )
    appearance_components: int = setting(
        2, "N_a: components that carry appearance", ge=1, le=64, unit="components", source="section 4: 2"
    )
    normalize: Normalize = setting(
        "variance",
        "coordinates: all over the features' deviation, each scaled to [0, 1] over the picture, or as they are",
        unit="choice",
        source="none in the paper; minmax in the code; variance is ours",
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
    update: Literal["relative", "official", "paper"] = setting(
        "relative",
        "relative: a step along the gradient on x_{t-1}, its length set by structure_strength; official: the gradient "
        "itself on x_{t-1}; paper: added to eps",
        unit="choice",
        source="eq. 7: paper; official in the code; relative is ours",
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
    inverter: Inverter = inverter()
    layers: Literal["all", "first", "last"] | None = setting(
        None,
        "self-attentions of the family's block that are used; none = the model family's",
        unit="choice",
        source="section 4: first; all in the code; last is ours",
    )
    sites: str | None = setting(
        None,
        "modules whose outputs are compared, a + between names, as they run; none = what layers and features say",
        unit="text",
        source="ours",
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
    checkpointing: Checkpointing = blocks_run_again("all is kept in the code")
    bases: str | None = setting(
        None,
        "bases in place of the concept's own: a concept or key of `freectl bases list`, a file, or mini",
        min_length=1,
        unit="text",
        source="supplement: bases of a related concept; by name is ours",
    )


def resolved(settings: FreeControlSettings, family: Family, *, appearance_image: bool = False) -> FreeControlSettings:
    """The settings with every None replaced by the update's or the family's value.

    A window in steps that was asked for stays one. A family that does without a sibling still follows a given
    appearance picture, as strongly as the structure.

    Raises:
        InputError: the update does not exist on the family's path, or has no use for the strength or weight given.
    """
    check_dial(settings)
    check_inverter(settings, family)
    if family.flow and settings.update == "paper":
        raise InputError("--set update", "paper on a flow, at whose first step it is infinite", "relative or official")
    relative = settings.update == "relative"
    weight = None if relative else PUBLISHED_WEIGHT
    values = {"structure_weight": weight, **family.freecontrol}
    if "window_stop" in settings.model_fields_set:
        values.pop("window_level", None)
    share = values["appearance_weight"] or float(appearance_image)
    beside = 1.0 if relative else settings.structure_weight
    values["appearance_weight"] = share * (PUBLISHED_WEIGHT if beside is None else beside)
    missing = {name: value for name, value in values.items() if getattr(settings, name, 0) is None}
    return settings.model_copy(update=missing)


def check_dial(settings: FreeControlSettings) -> None:
    """Refuse the dial of another update: a strength beside a published one, a structure weight beside ours.

    Raises:
        InputError: the one that would have no effect.
    """
    if settings.update == "relative" and settings.structure_weight is not None:
        allowed = "--structure-strength, 0 to 1, or --preset official or paper"
        raise InputError("--set structure_weight", f"{settings.structure_weight:g} with update=relative", allowed)
    if settings.update != "relative" and settings.structure_strength != STRENGTH:
        found = f"{settings.structure_strength:g} with update={settings.update}"
        raise InputError("--set structure_strength", found, "--set structure_weight=400, or update=relative")


def guidance_scale(settings: FreeControlSettings, family: Family) -> float:
    """The default of classifier-free guidance: the family's own for our update where it has one."""
    own = family.freecontrol.get("guidance_scale") if settings.update == "relative" else None
    return family.guidance_scale if own is None else float(own)


PRESETS: dict[str, dict] = {
    "default": {},
    "official": {
        "structure_weight": 600.0,
        "appearance_weight": 60.0,
        "components": 64,
        "features": "keys",
        "layers": "all",
        "normalize": "minmax",
        "update": "official",
        "window_stop": 0.6,
        "background_area": "all",
        "inversion_steps": 999,
        "inversion_at": "upper",
        "seed_steps": 200,
    },
    "paper": {
        "structure_weight": 600.0,
        "appearance_weight": 120.0,
        "components": 64,
        "features": "keys",
        "window_stop": 0.6,
        "warmup": 0.0,
        "normalize": "none",
        "appearance_gate": "sigmoid",
        "reduction": "sum",
        "update": "paper",
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
F_t: self-attention keys, or queries and residual blocks' outputs too;  B_t, mu_t: first N_b principal directions and
  mean of F_t over N_s seed pictures, V_t its variance
S_t = (F_t - mu_t) B_t^T, times sqrt(N_b / V_t) or scaled to [0, 1];  S_t^g of the inverted input or condition,
  m its mask
g_s = sum(m |S_t - S_t^g|^2) / sum(m) + w sum((1 - m) max(S_t - tau, 0)^2) / sum(1 - m)
  tau = maximum of S_t^g where m = 0, per component
v_k = sum(h(S_t^(k)) F_t) / sum(h(S_t^(k))), h(x) = x where x > 0.5 ("gated") or sigmoid(x);
  g_a = mean over k <= N_a of |v_k - v_k of the sibling|^2
x_T = sqrt(1 - a) inverted + sqrt(a) noise, a = start_noise, or noise under conditions
eps = eps_u + s (eps_c - eps_u)
window: a share of the steps, or on flows sigma >= window_level
update "relative": E = g_s + lambda_a g_a, g = dE / dx_t, x_{t-1} -= u, u along g with
  |u| = min(2 strength turn s_t s_{t-1} sqrt(numel), 2 E / |g|); turn = angle from (a, s) of t to that of t-1
update "official": g = d(lambda_s g_s + lambda_a g_a) / dx_t, x_{t-1} -= s_t s_{t-1} g;  update "paper": eps += g
"""
"""Section 3 of arXiv 2312.07536 as it is computed here."""
