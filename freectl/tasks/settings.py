"""The settings of all methods by name, for editors and type checkers.

What a setting means, its range and its default stand with its method: `freectl methods --describe NAME`.
"""

from typing import TypedDict


class Settings(TypedDict, total=False):
    """Keyword arguments of `edit`, `control` and `compare` beside their own; a method takes its own among them."""

    appearance_components: int
    appearance_gate: str
    appearance_stop: float
    appearance_text: str
    appearance_threshold: float
    appearance_weight: float | None
    against: str
    alignment: float
    asking: str
    attention_stop: float
    auto_corr: float
    average: int
    background_area: str
    background_weight: float
    bases: str | None
    blend: str
    blend_start: float
    blend_threshold: float
    checkpointing: str
    components: int
    control_mode: int | None
    control_start: float
    control_stop: float
    controlnet: str | None
    cross_stop: float
    cross_words: str
    deviation: str
    direction: str
    edit: str
    empty_text: str
    feature_stop: float
    features: str | None
    first_step: str
    gamma: float
    gan_direction: str | None
    gan_weights: str | None
    inversion: str
    inversion_at: str
    inversion_guidance: float
    inversion_steps: int | None
    inverted: bool
    inverter: str
    kl: float
    last_noise: str
    layer_start: float
    layers: str | None
    negative: str
    normalize: str
    null_rate: float
    null_steps: int
    plain: float
    pull: float
    pull_start: float
    pull_stop: float
    recurrence_start: float
    recurrence_stop: float
    recurrences: int
    reduction: str
    rest: str
    reweight: str
    rolls: int
    rounds: int
    sampler_eta: float
    scale: float
    seed_features: str
    seed_steps: int
    seeds: int
    self_area: float
    self_stop: float
    sentences: int
    sites: str | None
    skip: float
    source_guidance: float
    source_row: str
    source_text: str
    start: float | str
    start_noise: float
    steer: str
    strength: float
    structure_stop: float
    structure_strength: float
    structure_weight: float | None
    style_alpha: float
    style_colour: str
    style_evaluations: int
    style_features: str
    style_size: int
    style_way: str
    style_weight: float
    style_weights: str | None
    threshold: float
    update: str
    warmup: float
    window_level: float | None
    window_start: float
    window_stop: float
    words: str
    xa_guidance: float
