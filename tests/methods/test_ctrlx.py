"""Ctrl-X: statistics transfer against a naive loop, its layers, its limiting cases, and what it leaves behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from method_kit import check_unet_restored, picture, wrap
from torch import Tensor
from toy import alpha_bar, toy_unet

from freectl.denoising.injection import row_places
from freectl.denoising.sampler import Controller, Lane, Step, row_keys
from freectl.errors import InputError
from freectl.methods.appearance import transferred
from freectl.methods.base import Condition
from freectl.methods.ctrlx import CtrlX, CtrlXController, CtrlXSettings, told
from freectl.models.engine import Engine
from freectl.models.families import MINI, SD, SDXL
from freectl.models.families.unet import attentions_under, self_attentions

STEPS = 5
SCALE = 4.0
TOYS = ["toy_pipe", "toy_pipe_v", "toy_xl_pipe"]
OFF = {"structure_stop": 0.0, "appearance_stop": 0.0, "recurrences": 0}


@pytest.fixture(params=TOYS)
def pipe(request) -> Any:
    return wrap(request.getfixturevalue(request.param))


def run(pipe: Any, prompt: Any = "a cat", image: Any = None, seed: int = 0, **options: Any):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    options.setdefault("generator", torch.Generator().manual_seed(seed))
    if "conditions" not in options:
        options["image"] = image or picture()
    return pipe(prompt, method=CtrlX(), **options)


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


# The transfer


def naive_transfer(
    own: Tensor, other: Tensor, w_q: Tensor, w_k: Tensor, heads: int, asking: Tensor | None = None, sample: bool = False
) -> Tensor:
    """The equations entry by entry in float64, one picture."""
    own, other = own.double(), other.double()

    def norm(x: Tensor) -> Tensor:
        count = len(x) - 1 if sample else len(x)
        variance = sum((row - x.mean(0)) ** 2 for row in x) / count
        return (x - x.mean(0)) / (variance if sample else variance + 1e-5).sqrt()

    q, k = norm(own if asking is None else asking.double()) @ w_q.double().T, norm(other) @ w_k.double().T
    width = own.shape[1] // heads
    result = torch.zeros_like(own)
    for token in range(own.shape[0]):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = torch.stack([q[token, part] @ key[part] / width**0.5 for key in k]).softmax(0)
            for c in range(head * width, (head + 1) * width):
                mean = sum(w * h for w, h in zip(weights, other[:, c], strict=True))
                square = sum(w * h * h for w, h in zip(weights, other[:, c], strict=True))
                result[token, c] = (square - mean**2).clamp(min=0).sqrt() * norm(own)[token, c] + mean
    return result


def test_transfer_equals_the_equations(unet):
    layer = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    generator = torch.Generator().manual_seed(0)
    own, other = (3 * torch.randn(2, tokens, 16, generator=generator) + 1 for tokens in (6, 5))
    got = transferred(own, other, layer)
    for i in range(2):
        expected = naive_transfer(own[i], other[i], layer.to_q.weight, layer.to_k.weight, layer.heads)
        torch.testing.assert_close(got[i].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("other_queries", [False, True])
def test_transfer_in_the_published_form_equals_the_equations(unet, sample, other_queries):
    layer = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    generator = torch.Generator().manual_seed(0)
    own, other, third = (0.01 * torch.randn(1, 5, 16, generator=generator) + 1 for _ in range(3))
    asking = third if other_queries else None
    got = transferred(own, other, layer, asking, "sample" if sample else "population")
    weights = (layer.to_q.weight, layer.to_k.weight, layer.heads)
    expected = naive_transfer(own[0], other[0], *weights, third[0] if other_queries else None, sample)
    torch.testing.assert_close(got[0].double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, transferred(own, other, layer), atol=1e-5) or not (sample or other_queries)


def test_flat_channels_stay_finite_without_an_epsilon(unet):
    layer = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    flat = torch.full((1, 7, 16), 0.75)
    torch.testing.assert_close(transferred(flat, flat, layer, deviation="sample"), flat, rtol=0, atol=1e-3)


def test_a_flat_appearance_is_taken_as_it_is(unet):
    layer = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    flat = torch.full((1, 7, 16), 0.75)
    own = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(transferred(own, flat, layer), flat, rtol=0, atol=1e-3)


# Layers


def meta_unet(**config: Any) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=16, **config)


def places(layers: list[str]) -> list[str]:
    return list(dict.fromkeys(layer.partition(".transformer_blocks")[0] for layer in layers))


def test_layers_of_sdxl_are_the_published():
    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    up = tuple(name.replace("Down", "Up") for name in reversed(down))
    unet = meta_unet(
        block_out_channels=(32, 32, 64),
        down_block_types=down,
        up_block_types=up,
        transformer_layers_per_block=(1, 2, 10),
    )
    structure = attentions_under(unet, SDXL.ctrlx.structure)
    assert SDXL.ctrlx.feature == "up_blocks.0.resnets.0"
    assert len(structure) == 30
    assert places(structure) == [f"up_blocks.0.attentions.{i}" for i in range(3)]
    encoder = [f"down_blocks.{block}.attentions.{i}" for block in (1, 2) for i in (0, 1)]
    decoder = ["up_blocks.0.attentions.1", "up_blocks.0.attentions.2", "up_blocks.1.attentions.0"]
    expected = [*encoder, *decoder, "up_blocks.1.attentions.1"]
    assert places(attentions_under(unet, SDXL.ctrlx.appearance)) == expected


def test_layers_exist_in_stable_diffusion_and_in_the_embedded_model():
    stable = meta_unet(block_out_channels=(32, 64, 96, 96))
    assert places(attentions_under(stable, SD.ctrlx.structure)) == [f"up_blocks.1.attentions.{i}" for i in range(3)]
    assert len(attentions_under(stable, SD.ctrlx.appearance)) == 8
    config = UNet2DConditionModel.load_config(Path(__file__).parents[2] / "freectl/mini/model/unet")
    with torch.device("meta"):
        mini = UNet2DConditionModel.from_config(config)
    for unet, layers in ((stable, SD.ctrlx), (mini, MINI.ctrlx)):
        attentions_under(unet, [*layers.structure, *layers.appearance])
        assert unet.get_submodule(layers.feature) is not None
    with pytest.raises(InputError, match=r"up_blocks\.0"):
        attentions_under(toy_unet(), SDXL.ctrlx.structure)


# Limiting cases


def plain(pipe: Any, **options: Any) -> Tensor:
    cls = StableDiffusionXLPipeline if hasattr(pipe, "text_encoder_2") else StableDiffusionPipeline
    reference: DiffusionPipeline = cls.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    return reference("a cat", height=32, width=32, eta=1.0, **options).images


def test_empty_windows_are_plain_stochastic_sampling(pipe):
    got = run(pipe, **OFF)
    assert torch.equal(got.images, plain(pipe, generator=torch.Generator().manual_seed(0)))
    assert got.cost["row_forwards"] == 2 * STEPS
    for change in ({"structure_stop": 0.4}, {"appearance_stop": 0.4}, {"recurrences": 1, "recurrence_start": 0.0}):
        assert not torch.equal(run(pipe, **OFF | change).images, got.images)


def test_given_latents_are_the_start(toy_pipe):
    pipe = wrap(toy_pipe)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    settings = CtrlXSettings(**OFF, sampler_eta=0.0)
    got = run(pipe, latents=noise, settings=settings).images
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"}
    assert torch.equal(got, reference("a cat", latents=noise, **options).images)


def lanes_of(pipe: Any, same: bool) -> tuple[Engine, CtrlXController, dict[str, Lane]]:
    engine = Engine(pipe)
    engine.timesteps(STEPS)
    latents = [engine.noise((32, 32), [torch.Generator().manual_seed(i)]) for i in range(3)]
    prompt = engine.encode_prompt(["a cat"], [""])
    other = engine.encode_prompt(["a cat" if same else "a dog"])
    lanes = {"edit": Lane(latents[0], prompt, SCALE)}
    lanes["structure"] = Lane(latents[0] if same else latents[1], other)
    if not same:
        lanes["appearance"] = Lane(latents[2], other)
    return engine, CtrlXController(engine.path(STEPS), engine.family.ctrlx_sites(pipe.unet), CtrlXSettings(), {}), lanes


@torch.no_grad()
def test_injecting_its_own_features_changes_nothing(pipe):
    engine, controller, lanes = lanes_of(pipe, same=True)
    step = Step(0, STEPS, 501)
    expected = Controller().predict(step, lanes, engine.denoiser)
    near(controller.predict(step, lanes, engine.denoiser)["edit"], expected["edit"])


class Explicit:
    """An attention processor with the published controls, a plain reading row by row."""

    def __init__(self, places: dict, structure: bool, appearance: bool) -> None:
        rows = ("edit", "structure", "appearance")
        self.edit, self.structure, self.appearance = (places[name, "cond"] for name in rows)
        self.injects, self.transfers = structure, appearance

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        x = hidden_states
        if self.transfers:
            normal = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
            asking = normal[self.structure if self.injects else self.edit]
            q, k = self._heads(attn, attn.to_q(asking)), self._heads(attn, attn.to_k(normal[self.appearance]))
            h = self._heads(attn, x[self.appearance])
            weights = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
            mean, square = ((weights @ v).transpose(1, 2).flatten(2) for v in (h, h * h))
            x = x.clone()
            x[self.edit] = (square - mean * mean).clamp(min=0).sqrt() * normal[self.edit] + mean
        q, k, v = (self._heads(attn, project(x)) for project in (attn.to_q, attn.to_k, attn.to_v))
        if self.injects:
            q[self.edit], k[self.edit] = q[self.structure].clone(), k[self.structure].clone()
        maps = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))

    def _heads(self, attn, value: Tensor) -> Tensor:
        return value.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


@torch.no_grad()
def test_the_published_form_equals_an_attention_written_out(pipe):
    engine, _, lanes = lanes_of(pipe, same=False)
    settings, sites = CtrlXSettings(**CtrlX.presets["published"]), engine.family.ctrlx_sites(pipe.unet)
    step, unet, places = Step(0, STEPS, 501), pipe.unet, row_places(lanes, row_keys(lanes))
    outputs = {}
    for asking in ("own", "structure"):
        chosen = settings.model_copy(update={"asking": asking})
        controller = CtrlXController(engine.path(STEPS), sites, chosen, {})
        outputs[asking] = controller.predict(step, lanes, engine.denoiser)["edit"]
    feature = [site for site in sites.injected if not site.endswith(("to_q", "to_k"))]
    before = unet.attn_processors

    def inject(_module, _args, output):
        output = output.clone()
        output[places["edit", "cond"]] = output[places["structure", "cond"]]
        return output

    handles = [unet.get_submodule(name).register_forward_hook(inject) for name in feature]
    try:
        for name in self_attentions(unet):
            both = f"{name}.to_q" in sites.injected, name in sites.transferred
            if any(both):
                unet.get_submodule(name).processor = Explicit(places, *both)
        expected = Controller().predict(step, lanes, engine.denoiser)["edit"]
    finally:
        unet.set_attn_processor(before)
        for handle in handles:
            handle.remove()
    near(outputs["structure"], expected)
    assert not torch.allclose(outputs["own"], expected, atol=1e-4 * float(expected.abs().max()))


def test_an_empty_text_may_stand_for_the_prompt(pipe):
    """Of the source and of the appearance picture, and of some pictures of a batch."""
    same = {"empty_text": "prompt"}
    got = run(pipe, source_prompt="", appearance_image=picture(1), **same).images
    assert torch.equal(
        got, run(pipe, source_prompt="a cat", appearance_image=picture(1), appearance_text="a cat").images
    )
    assert not torch.equal(got, run(pipe, source_prompt="", appearance_image=picture(1)).images)
    engine = Engine(pipe)
    prompt = engine.encode_prompt(["a cat", "a red fox"], ["", ""])
    mixed, expected = told(engine, ["", "a dog"], prompt), engine.encode_prompt(["a cat", "a dog"])
    assert torch.equal(mixed.cond, expected.cond)
    assert mixed.uncond is None
    for name, value in expected.added.get("cond", {}).items():
        assert torch.equal(mixed.added["cond"][name], value)


def test_the_first_step_may_be_the_start_itself(toy_pipe):
    """The given pictures are then seen from the second step on."""
    pipe = wrap(toy_pipe)
    only_first = {"structure_stop": 1 / STEPS, "appearance_stop": 0.0, "first_step": "start"}
    assert torch.equal(run(pipe, **only_first).images, run(pipe, image=picture(1), **only_first).images)
    noised = only_first | {"first_step": "noised"}
    assert not torch.equal(run(pipe, **noised).images, run(pipe, image=picture(1), **noised).images)


@torch.no_grad()
def test_only_the_conditional_row_of_the_edit_is_changed(pipe):
    engine, controller, lanes = lanes_of(pipe, same=False)
    step = Step(0, STEPS, 501)
    before = Controller().predict(step, lanes, engine.denoiser)
    after = controller.predict(step, lanes, engine.denoiser)
    for name in ("structure", "appearance"):
        assert torch.equal(after[name], before[name])
    assert not torch.equal(after["edit"], before["edit"])
    for lane in lanes.values():
        lane.guidance_scale = 0.0  # leaves the unconditional half alone
    before = Controller().predict(step, lanes, engine.denoiser)
    assert torch.equal(controller.predict(step, lanes, engine.denoiser)["edit"], before["edit"])


def test_a_repeat_noises_by_one_level_and_runs_alone(toy_pipe):
    engine, controller, lanes = lanes_of(wrap(toy_pipe), same=False)
    controller.generators = [torch.Generator().manual_seed(7)]
    timestep = engine.timesteps(STEPS)[2]
    step = Step(2, STEPS, timestep, repeat=1)
    assert controller.repeats(step) == 2
    assert controller.repeats(Step(3, STEPS, timestep)) == 0
    assert controller.active(step, lanes) == ("edit",)
    below = lanes["edit"].latents.double()
    controller.before(step, {"edit": lanes["edit"]})
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)).double()
    here = alpha_bar(engine.pipe.scheduler, timestep)
    ratio = here / alpha_bar(engine.pipe.scheduler, engine.path(STEPS).below(timestep))
    expected = ratio.sqrt() * below + (1 - ratio).sqrt() * noise
    torch.testing.assert_close(lanes["edit"].latents.double(), expected, rtol=1e-5, atol=1e-5)


# As edit and as control


def test_control_equals_edit_of_the_same_picture(toy_pipe):
    pipe = wrap(toy_pipe)
    edited = run(pipe, source_prompt="a dog").images
    assert torch.equal(run(pipe, conditions=[Condition(picture(), "a dog", mask="attention")]).images, edited)
    assert not torch.equal(run(pipe, conditions=[Condition(picture(), "a pig")]).images, edited)


@pytest.mark.parametrize(
    ("conditions", "match"),
    [
        ([Condition(picture())] * 2, "2 for ctrlx"),
        ([Condition(picture(), mask=picture(1))], "follows all of a condition"),
    ],
)
def test_what_it_cannot_obey_is_refused(toy_pipe, conditions, match):
    with pytest.raises(InputError, match=match):
        run(wrap(toy_pipe), conditions=conditions)


def test_appearance_picture_and_its_text_change_the_result(toy_pipe):
    pipe = wrap(toy_pipe)
    sibling, first, second = (run(pipe, appearance_image=one).images for one in (None, picture(1), picture(2)))
    told = run(pipe, appearance_image=picture(1), appearance_text="a pig").images
    results = [sibling, first, second, told]
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])


# Relations, cost, state


def test_batch_equals_singles(pipe):
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    both = run(pipe, ["a cat", "a red fox"], [picture(), picture(1)], generator=generators).images
    for i, text in enumerate(("a cat", "a red fox")):
        near(both[i : i + 1], run(pipe, text, picture(i), seed=i).images)


@pytest.mark.parametrize("appearance", [True, False])
def test_rows_follow_the_formula(toy_pipe, appearance):
    """Windows of 3 and 3 of 5 steps, two recurrences in steps 1 and 2."""
    settings = CtrlXSettings()
    cost = run(wrap(toy_pipe), appearance_image=picture(1) if appearance else None).cost
    expected = 2 * STEPS + 3 + (3 if appearance else 6) + 2 * 2 * 2
    assert cost["row_forwards"] == expected
    assert cost["row_backwards"] == 0
    words = CtrlX().row_forwards(STEPS, settings)
    assert words.startswith(f"synthesis {2 * STEPS + 3 + 6 + 8} ")
    assert f"({2 * STEPS + 3 + 3 + 8} with" in words


def test_the_published_cost_at_50_steps():
    """Reference: 30 steps of 4 rows, 20 of 2, 40 recurrences of 2."""
    assert "(240 with an appearance picture)" in CtrlX().row_forwards(50, CtrlXSettings())


def test_without_guidance_one_row_a_step_is_controlled(toy_pipe):
    cost = run(wrap(toy_pipe), guidance_scale=1.0, recurrences=0).cost
    assert cost["row_forwards"] == STEPS + 3 + 3


def test_unet_is_as_before_after_a_failing_callback(toy_pipe):
    pipe = wrap(toy_pipe)
    check_unet_restored(pipe, lambda fail: run(pipe, callback_on_step_end=fail), step=2)


def test_every_setting_is_read():
    code = Path(__file__).parents[2].joinpath("freectl/methods/ctrlx.py").read_text()
    for name, field in CtrlXSettings.model_fields.items():
        assert f"settings.{name}" in code, name
        assert field.description
