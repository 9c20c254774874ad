"""Settings of FreeControl, closed and frozen; the presets reproduce the two published forms and ours."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from freectl.families import Family


class FreeControlSettings(BaseModel):
    """What shapes the guidance (arXiv 2312.07536; equation numbers of that paper's section 3).

    Weights are per unit of the diffusion process: with `step_scaling="invariant"` they mean what they mean at 200
    steps, the published step count, whatever the number of steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    structure_weight: float | None = Field(
        None, ge=0, le=100_000, description="lambda_s: strength of the structure energy; None = the model family's"
    )
    appearance_weight: float | None = Field(
        None, ge=0, le=100_000, description="lambda_a: strength of the appearance energy; None = the model family's"
    )
    window_start: float = Field(0.0, ge=0, le=1, description="guidance starts at this fraction of the steps")
    window_stop: float = Field(0.6, ge=0, le=1, description="guidance stops at this fraction of the steps")
    warmup: float = Field(0.05, ge=0, le=1, description="weights grow linearly over this fraction of the steps")
    components: int | None = Field(
        None, ge=1, le=1024, description="N_b: semantic components that carry structure; None = the model family's"
    )
    appearance_components: int = Field(2, ge=1, le=64, description="N_a: components that carry appearance")
    normalize: Literal["minmax", "none"] = Field(
        "minmax", description="scale each coordinate to [0, 1] over the picture"
    )
    appearance_gate: Literal["gated", "sigmoid"] = Field("gated", description="weights of appearance vectors")
    appearance_threshold: float = Field(0.5, ge=0, le=1, description="gate of the appearance weights")
    reduction: Literal["mean", "sum"] = Field("mean", description="squares over components and channels")
    background_weight: float = Field(10.0, ge=0, description="w: weight of the background term where there is a mask")
    background_area: Literal["unmasked", "all"] = Field(
        "unmasked", description="what the background term averages over"
    )
    update: Literal["official", "paper"] = Field("official", description="gradient on the latents, or through eps")
    step_scaling: Literal["invariant", "per_step"] = Field("invariant", description="what a weight refers to")
    start: Literal["auto", "inverted", "noise"] = Field(
        "auto", description="x_T: the inverted input, or noise; auto = noise under conditions, else inverted"
    )
    inversion_steps: int | None = Field(
        None, ge=1, le=1000, description="steps of the inversion; None = the sampling grid; must contain that grid"
    )
    inversion_at: Literal["lower", "upper"] = Field(
        "lower", description="level whose timestep the network is given while inverting; published code: upper"
    )
    layers: Literal["all", "first"] = Field("all", description="which self-attentions of the family's block are used")
    seed_features: Literal["sampling", "inversion"] = Field("sampling", description="how seed features are recorded")
    seed_steps: int = Field(50, ge=1, le=1000, description="steps of the grid on which seed pictures are sampled")
    seeds: int = Field(20, ge=1, le=1000, description="N_s: seed pictures that a basis is made of")
    bases: str | None = Field(
        None,
        min_length=1,
        description="bases in place of the concept's own: a concept or key of `freectl bases list`, a file, or mini",
    )


def resolved(settings: FreeControlSettings, family: Family, *, appearance_image: bool = False) -> FreeControlSettings:
    """The settings with every None replaced by the family's value.

    A family that does without a sibling still follows a given appearance picture, as strongly as the structure.
    """
    family_values = dict(family.freecontrol)
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
        "layers": "first",
        "seed_features": "inversion",
    },
}
"""Named settings; anything not named is the default."""
EQUATIONS = """
F_t: self-attention keys;  B_t, mu_t: first N_b principal directions and mean of F_t over N_s seed pictures
S_t = (F_t - mu_t) B_t^T, each component scaled to [0, 1];  S_t^g of the inverted input or condition, m its mask
g_s = sum(m |S_t - S_t^g|^2) / sum(m) + w sum((1 - m) max(S_t - tau, 0)^2) / sum(1 - m)
  tau = maximum of S_t^g where m = 0, per component
v_k = sum(sigmoid(S_t^(k)) F_t) / sum(sigmoid(S_t^(k)));  g_a = mean over k <= N_a of |v_k - v_k of the sibling|^2
eps = eps_u + s (eps_c - eps_u);  gradient g = d(lambda_s g_s + lambda_a g_a) / d x_t
update "official": x_{t-1} -= sqrt(1 - abar_t) sqrt(1 - abar_{t-1}) g;  update "paper": eps += g
"""
"""Section 3 of arXiv 2312.07536 as it is computed here."""
