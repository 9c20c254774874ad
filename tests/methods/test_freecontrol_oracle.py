"""The presets `official` and `paper` against the published forms, written out in `freecontrol_oracle`, step by step."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from freecontrol_oracle import Form, Oracle
from method_kit import picture, wrap
from torch import Tensor

from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.freecontrol.settings import PRESETS, FreeControlSettings
from freectl.models.engine import Engine
from freectl.pipelines.sd import FreeControlPipeline

STEPS = {"official": 20, "paper": 10}
"""The code's weights grow over the first twentieth of the steps, which has to be one."""
TOTAL, GUIDED = 40, 3
SEED = 4
SEED_PROMPT = "a cat"  # of the family that the toy belongs to, with its scale of 4 and no negative prompt
SOURCE, PROMPT = "a cat on a mat", "a red cat"
SMALL = {"seeds": 2, "components": 6, "inversion_steps": TOTAL - 1}
"""A short schedule, so that 39 steps of inversion stand for 999."""


@pytest.fixture(scope="module")
def pipe(request, toy_pipe, toy_pipe_v) -> FreeControlPipeline:
    toy = copy.deepcopy(toy_pipe if request.param == "epsilon" else toy_pipe_v)
    toy.scheduler = DDIMScheduler(
        num_train_timesteps=TOTAL, beta_start=0.0085, beta_end=0.12, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=request.param,
    )  # fmt: skip
    # the schedule's own arithmetic in double, too
    toy.scheduler.alphas_cumprod = toy.scheduler.alphas_cumprod.double()
    toy.scheduler.final_alpha_cumprod = toy.scheduler.final_alpha_cumprod.double()
    return wrap(toy).to(torch.float64)


@pytest.fixture(scope="module")
def oracles(pipe) -> dict[bool, Oracle]:
    """By whether it is the code's form; they share nothing but the pipeline."""
    found = {}
    for code, name in ((True, "official"), (False, "paper")):
        preset, steps = PRESETS[name], STEPS[name]
        weights = (preset["structure_weight"], preset["appearance_weight"])
        form = Form(code, *weights, SMALL["seeds"], SMALL["components"], steps, TOTAL - 1, steps)
        found[code] = Oracle(pipe, form, picture(), SEED_PROMPT, SOURCE, PROMPT, None)
    return found


def states_of(pipe: FreeControlPipeline, preset: str, mask: str | None, count: int, **more) -> list[Tensor]:
    settings = FreeControlSettings(**(PRESETS[preset] | SMALL | {"seed_steps": STEPS[preset]} | more))
    states: list[Tensor] = []

    def keep(pipe, index, _timestep, tensors):
        states.append(tensors["latents"].clone())
        pipe._interrupt = index + 1 == count
        return {}

    condition = Condition(picture(), SOURCE, "cat", mask)
    pipe(
        PROMPT, conditions=[condition], num_inference_steps=STEPS[preset],
        generator=torch.Generator().manual_seed(SEED), settings=settings, callback_on_step_end=keep,
        output_type="latent", cache=Cache(),
    )  # fmt: skip
    return states


@pytest.mark.parametrize(
    ("pipe", "preset", "mask"),
    [("epsilon", "official", None), ("epsilon", "official", "attention"), ("v_prediction", "paper", "attention")],
    indirect=["pipe"],
)
def test_preset_is_the_published_form(pipe, oracles, preset, mask):
    """Three guided steps; the code's first step has weight 0."""
    code = preset == "official"
    oracle, count = oracles[code], GUIDED + code
    # letters are the toy tokenizer's tokens: "a", then "c" "a" "t", behind the start token
    oracle.word = None if mask is None else [2, 3, 4]
    expected = oracle.run(SEED, count)
    got = states_of(pipe, preset, mask, count)
    plain = states_of(pipe, preset, mask, count, structure_weight=0.0, appearance_weight=0.0)
    assert len(got) == count
    for step, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == torch.float64
        assert (one - other).abs().max() <= 1e-6, step
    assert (got[-1] - plain[-1]).abs().max() > 1e-2
    assert torch.equal(got[0], plain[0]) is code


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_presets_have_the_published_values(preset):
    settings = FreeControlSettings(**PRESETS[preset])
    common = {"window_start": 0.0, "window_stop": 0.6, "components": 64, "appearance_components": 2, "seeds": 20,
              "seed_steps": 200, "inversion_steps": 999, "features": "keys", "background_weight": 10.0,
              "structure_weight": 600.0}  # fmt: skip
    own = {
        "official": {"appearance_weight": 60.0, "warmup": 0.05, "normalize": "minmax", "appearance_gate": "gated",
                     "appearance_threshold": 0.5, "reduction": "mean", "background_area": "all", "update": "official",
                     "layers": "all", "seed_features": "sampling", "inversion_at": "upper"},
        "paper": {"appearance_weight": 120.0, "warmup": 0.0, "normalize": "none", "appearance_gate": "sigmoid",
                  "reduction": "sum", "background_area": "unmasked", "update": "paper", "layers": "first",
                  "seed_features": "inversion", "inversion_at": "lower"},
    }[preset]  # fmt: skip
    assert {name: getattr(settings, name) for name in common | own} == common | own


def test_inversion_in_999_steps_is_the_published_codes(toy_pipe):
    """Against diffusers' inverse scheduler, from the noisiest of a few of its steps down; every level is a key."""
    pipe = wrap(copy.deepcopy(toy_pipe))
    engine = Engine(pipe)
    fine = engine.path(999)
    assert list(fine.times) == list(range(999, 0, -1))
    few = replace(fine, times=fine.times[-6:])
    trajectory, _ = engine.invert(picture(), "a cat", few, evaluate_at="upper")
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    inverse.set_timesteps(999)
    x, text = engine.encode_images([picture()]), engine.encode_prompt(["a cat"]).cond
    for t in inverse.timesteps[:6]:
        with torch.no_grad():
            output = pipe.unet(x, t, encoder_hidden_states=text).sample
        x = inverse.step(output, t, x).prev_sample
        torch.testing.assert_close(trajectory.levels[int(t)], x, rtol=0, atol=1e-5)
