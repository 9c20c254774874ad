"""Prompt-to-Prompt: map edits against an explicit attention, limiting cases, and what it leaves behind."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, StableDiffusionPipeline
from method_kit import picture, wrap
from torch import Tensor
from toy import toy_inputs

from freectl.denoising.attention_maps import TextSequence, token_positions
from freectl.denoising.injection import Injection, projections, row_places
from freectl.denoising.sampler import Controller, Lane, Prompt, Step, row_keys, sample
from freectl.files.cache import Cache
from freectl.methods.p2p.align import Alignment, align
from freectl.methods.p2p.blend import LocalBlend, parse_blend
from freectl.methods.p2p.maps import FROM, ROW, MapInjector
from freectl.methods.p2p.method import P2P, P2PSettings
from freectl.models.engine import Engine
from freectl.models.families.unet import cross_attentions, self_attentions
from freectl.pipelines.sd import FreeControlPipeline

STEPS = 5
SCALE = 4.0
SOURCE = "a dog"
TOYS = ["toy_pipe", "toy_pipe_v"]
OFF = {"cross_stop": 0.0, "self_stop": 0.0}
FULL = {"cross_stop": 1.0, "self_stop": 1.0, "self_area": 1.0}


@pytest.fixture(params=TOYS)
def pipe(request) -> FreeControlPipeline:
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(
    pipe: FreeControlPipeline, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any
):
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | options
    return pipe(prompt, image or picture(), method=P2P(), cache=cache, output_type="latent", **options)


def plain(pipe: FreeControlPipeline, start: Tensor, prompt: str = "a cat", **options: Any) -> Tensor:
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "latent"} | options
    return reference(prompt, latents=start, **options).images


def start_of(pipe: FreeControlPipeline, cache: Cache) -> Tensor:
    engine = Engine(pipe, cache=cache)
    return engine.invert(picture(), SOURCE, engine.path(STEPS))[0].start


def sequence(pipe: Any) -> TextSequence:
    return TextSequence(pipe.tokenizer, pipe.tokenizer.model_max_length)


def near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


# Map edits


class ExplicitMaps:
    """An attention processor that edits softmax maps, the plain reading of the paper."""

    def __init__(self, places, alignment: Alignment | None, limit: float) -> None:
        self.places, self.alignment, self.limit = places, alignment, limit

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        row, source = self.places[ROW], self.places[FROM]
        if encoder_hidden_states is None and maps.shape[-1] <= self.limit:
            maps[row] = maps[source]
        elif encoder_hidden_states is not None and self.alignment is not None:
            maps[row] = self.alignment.mix(maps[source], maps[row])
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))


def lanes_of(engine: Engine, target: str, source_guided: bool = False, batch: int = 1) -> dict[str, Lane]:
    latents = [engine.noise((32, 32), [torch.Generator().manual_seed(i) for i in range(s, s + batch)]) for s in (0, 9)]
    return {
        "edit": Lane(latents[0], engine.encode_prompt([target] * batch, [""] * batch), SCALE),
        "source": Lane(
            latents[1], engine.encode_prompt([SOURCE] * batch, [""] * batch if source_guided else None), SCALE
        ),
    }


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("target", ["a cat", "a zebra", "a red dog", SOURCE])
def test_equals_editing_the_maps(pipe, target, batch):
    engine = Engine(pipe)
    lanes = lanes_of(engine, target, batch == 2, batch)
    alignment = align(sequence(pipe), [SOURCE] * batch, [target] * batch, "auto", "a=2")
    area, crossed = 0.25, engine.family.cross_layers(pipe.unet)
    injections = [
        Injection(projections(self_attentions(pipe.unet), "qk")),
        Injection(tuple(cross_attentions(pipe.unet))),
    ]
    step = Step(0, 1, 501)
    with torch.no_grad():
        untouched = Controller().predict(step, lanes, engine.denoiser)
        got = MapInjector({}, injections, alignment, area, crossed).predict(step, lanes, engine.denoiser)
        before = pipe.unet.attn_processors
        try:
            pipe.unet.set_attn_processor(ExplicitMaps(row_places(lanes, row_keys(lanes)), alignment, area * 64))
            expected = Controller().predict(step, lanes, engine.denoiser)
        finally:
            pipe.unet.set_attn_processor(before)
    for name in lanes:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(got["source"], untouched["source"], rtol=0, atol=0)
    assert not torch.allclose(got["edit"], untouched["edit"], atol=1e-4)


def test_equal_maps_change_nothing(pipe):
    engine = Engine(pipe)
    lanes = lanes_of(engine, SOURCE)
    lanes["source"] = Lane(lanes["edit"].latents, Prompt(lanes["edit"].prompt.cond))
    alignment = align(sequence(pipe), [SOURCE], [SOURCE], "auto")
    injector = MapInjector(
        {}, [Injection(tuple(cross_attentions(pipe.unet)))], alignment, 1.0, engine.family.cross_layers(pipe.unet)
    )
    with torch.no_grad():
        got = injector.predict(Step(0, 1, 501), lanes, engine.denoiser)
        expected = Controller().predict(Step(0, 1, 501), lanes, engine.denoiser)
    near(got["edit"], expected["edit"])


def test_equal_prompt_and_exact_trajectory_are_the_reconstruction(pipe):
    engine = Engine(pipe)
    timesteps = engine.timesteps(STEPS)
    lane = lanes_of(engine, SOURCE)["edit"]
    own: dict[int, Tensor] = {}

    class Record(Controller):
        def before(self, step, lanes):
            own[step.timestep] = lanes["edit"].latents

    start, prompt = lane.latents, lane.prompt
    expected = sample(engine.denoiser, engine.path(STEPS), {"edit": lane}, timesteps, Record())["edit"].latents
    lanes = {"edit": Lane(start, prompt, SCALE), "source": Lane(start, Prompt(prompt.cond))}
    injections = [
        Injection(projections(self_attentions(pipe.unet), "qk")),
        Injection(tuple(cross_attentions(pipe.unet))),
    ]
    alignment, crossed = align(sequence(pipe), [SOURCE], [SOURCE], "auto"), engine.family.cross_layers(pipe.unet)
    injector = MapInjector(own, injections, alignment, 1.0, crossed)
    near(sample(engine.denoiser, engine.path(STEPS), lanes, timesteps, injector)["edit"].latents, expected)


# Whole runs


def test_empty_windows_are_plain_sampling_from_the_inverted_latent(pipe, cache):
    start = start_of(pipe, cache)
    out = run(pipe, cache, **OFF)
    assert torch.equal(out.images, plain(pipe, start))
    assert out.cost["row_forwards"] == 2 * STEPS
    for window in OFF:
        assert not torch.equal(run(pipe, cache, **OFF | {window: 0.5}).images, out.images)


def test_negative_prompt_inversion_takes_the_source_prompt_as_negative(pipe, cache):
    got = run(pipe, cache, inversion="negative-prompt", **OFF).images
    assert torch.equal(got, plain(pipe, start_of(pipe, cache), negative_prompt=SOURCE))


def test_a_free_source_has_the_edits_negative_prompt(pipe, cache):
    """Both rows are then the same at every step of an equal prompt, and copying maps changes nothing."""
    got = run(pipe, cache, SOURCE, inversion="ddim", negative_prompt="blurry", **FULL).images
    near(got, plain(pipe, start_of(pipe, cache), SOURCE, negative_prompt="blurry"))


@pytest.mark.parametrize("preset", ["published", "pie-bench"])
def test_the_published_inversion_is_diffusers_inverse_scheduler(pipe, cache, preset):
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    inverse.set_timesteps(STEPS)
    engine = Engine(pipe)
    x, text = engine.encode_images([picture()]), engine.encode_prompt([SOURCE]).cond
    for time in inverse.timesteps:
        with torch.no_grad():
            x = inverse.step(pipe.unet(x, time, encoder_hidden_states=text).sample, time, x).prev_sample
    got = run(pipe, cache, settings=P2PSettings(**P2P.presets[preset] | OFF)).images
    near(got, plain(pipe, x))


@pytest.mark.parametrize("inversion", ["direct", "ddim", "negative-prompt"])
def test_batch_equals_singles(toy_pipe, cache, inversion):
    pipe = wrap(toy_pipe)
    texts = ("a cat", "a red fox")
    both = run(pipe, cache, list(texts), [picture(), picture(1)], inversion=inversion).images
    for i, text in enumerate(texts):
        near(both[i : i + 1], run(pipe, cache, text, picture(i), inversion=inversion).images)


@pytest.mark.parametrize(("inversion", "each"), [("direct", 1), ("ddim", 2), ("negative-prompt", 1)])
def test_rows_follow_the_formula(toy_pipe, inversion, each):
    """Published: N + 4 N; the source's rows are left out behind the windows, and one of them where it is not needed."""
    pipe = wrap(toy_pipe)
    for windows, shared in (
        ({"cross_stop": 0.8, "self_stop": 0.4}, 4),
        (FULL, 5),
        ({"cross_stop": 0, "self_stop": 0.4}, 2),
    ):
        cost = run(pipe, inversion=inversion, **windows).cost
        assert cost["row_forwards"] == STEPS + 2 * STEPS + each * shared
        assert cost["row_backwards"] == 0
        words = P2P().row_forwards(STEPS, P2PSettings(inversion=inversion, **windows))
        assert words == f"inversion {STEPS} + synthesis {2 * STEPS + each * shared}"
        unguided = run(pipe, inversion=inversion, guidance_scale=1.0, **windows).cost
        assert unguided["row_forwards"] == 2 * STEPS + shared


@pytest.mark.parametrize(
    "change",
    [
        {"edit": "refine"},
        {"cross_stop": 0.2},
        {"self_stop": 0.0},
        {"self_area": 1.0},
        {"reweight": "fox=4"},
        {"inversion": "ddim"},
        {"inversion": "negative-prompt"},
    ],
)
def test_settings_change_the_result(toy_pipe, cache, change):
    pipe = wrap(toy_pipe)
    base = run(pipe, cache, "a fox").images
    assert not torch.equal(run(pipe, cache, "a fox", **change).images, base)


def test_a_factor_of_1_changes_nothing(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    assert torch.equal(run(pipe, cache, reweight="cat=1").images, run(pipe, cache).images)


def test_no_source_prompt_is_warned_of(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    assert run(pipe, cache).warnings == []
    assert "source prompt" in run(pipe, cache, source_prompt="").warnings[0]


def test_unet_is_as_before_after_a_failing_callback(pipe, cache):
    unet = pipe.unet
    inputs, processors = toy_inputs(unet), unet.attn_processors

    def fail(_pipe, index, _timestep, _tensors):
        if index == 2:
            raise RuntimeError("from the callback")

    with torch.no_grad():
        before = unet(**inputs).sample
    with pytest.raises(RuntimeError, match="from the callback"):
        run(pipe, cache, callback_on_step_end=fail)
    with torch.no_grad():
        assert torch.equal(unet(**inputs).sample, before)
    assert unet.attn_processors == processors
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_every_setting_is_read():
    code = Path(__file__).parents[2].joinpath("freectl/methods/p2p/method.py").read_text()
    for name, field in P2PSettings.model_fields.items():
        assert f"settings.{name}" in code, name
        assert field.description


def test_presets():
    for preset in P2P.presets.values():
        P2PSettings(**preset)
    assert P2P().row_forwards(50, P2PSettings(inversion="ddim", cross_stop=1.0)) == "inversion 50 + synthesis 200"


# Local blend


def test_blend_words():
    assert parse_blend("fox=cat, hat,=scarf ,tail=") == [("fox", "cat"), ("hat", "hat"), ("", "scarf"), ("tail", "")]
    assert parse_blend("") == []
    with pytest.raises(ValueError, match="comma separated"):
        parse_blend("=")


def test_blend_masks_are_the_published(toy_pipe):
    """Mean over layers and steps, 3 x 3 maximum, nearest to the latents, over its maximum, 0.3, union: a naive loop."""
    blend = LocalBlend(
        partial(token_positions, toy_pipe.tokenizer),
        [("dog", "cat")],
        ["a dog"],
        ["a cat"],
        [],
        start=0.2,
        threshold=0.3,
    )
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 16)[:, None] ** 6  # most places are dark
    layers = {
        name: [ramp * torch.rand(1, 2, 16, 77, generator=generator) for _ in range(3)] for name in ("source", "edit")
    }
    for name, maps in layers.items():
        for one in maps:
            blend.record(name, one)
    expected = torch.zeros(8, 8)
    for maps in layers.values():
        mean = sum(m[0, h, :, p] for m in maps for h in (0, 1) for p in (2, 3, 4)) / 6  # a, then d o g
        grid = mean.view(4, 4).tolist()
        near_by = [range(max(0, i - 1), min(4, i + 2)) for i in range(4)]
        grown = [[max(grid[a][b] for a in near_by[i] for b in near_by[j]) for j in range(4)] for i in range(4)]
        top = max(map(max, grown))
        for i in range(8):
            for j in range(8):
                expected[i, j] = max(expected[i, j], float(grown[i // 2][j // 2] / top > 0.3))
    assert torch.equal(blend.mask((8, 8))[0], expected)
    assert 0 < expected.mean() < 1
    source, edit = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    for index, changed in ((0, False), (1, True)):
        lane = Lane(edit, Prompt(torch.zeros(1, 1, 1)))
        blend.apply(Step(index, 5, 0), {"edit": lane}, source)
        assert torch.equal(lane.latents, expected.expand(1, 4, 8, 8) if changed else edit)


def test_blend_sees_the_maps_that_act(toy_pipe):
    """What is recorded is what an attention written out gives, edited where the alignment says so."""
    pipe = wrap(toy_pipe)
    engine = Engine(pipe)
    lanes = lanes_of(engine, "a cat")
    alignment = align(sequence(pipe), [SOURCE], ["a cat"], "auto", "cat=2")
    layer = cross_attentions(pipe.unet)[0]
    seen: dict[str, list[Tensor]] = {"source": [], "edit": []}

    class Recording(LocalBlend):
        def record(self, name, attention):
            seen[name].append(attention)

    explicit = {}

    class Explicit(ExplicitMaps):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
            q, k = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
            q, k = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k))
            explicit["maps"] = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
            return super().__call__(attn, hidden_states, encoder_hidden_states)

    words = [("dog", "cat")]
    blend = Recording(engine.token_positions, words, [SOURCE], ["a cat"], [layer], start=0.2, threshold=0.3)
    crossed = engine.family.cross_layers(pipe.unet)
    places = row_places(lanes, row_keys(lanes))
    module = pipe.unet.get_submodule(layer)
    with torch.no_grad():
        for stop in (0.0, 1.0):
            injector = MapInjector({}, [Injection((layer,), stop=stop)], alignment, 1.0, crossed, blend=blend)
            assert injector.active(Step(4, 5, 501), lanes) == ("edit", "source")
            injector.predict(Step(0, 1, 501), lanes, engine.denoiser)
        before = module.processor
        try:
            module.processor = Explicit(places, None, 0)
            Controller().predict(Step(0, 1, 501), lanes, engine.denoiser)
        finally:
            module.processor = before
    maps = explicit["maps"]
    for found, expected in zip(
        seen["edit"], (maps[places[ROW]], alignment.mix(maps[places[FROM]], maps[places[ROW]])), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["source"][1], maps[places[FROM]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("inversion", ["direct", "ddim"])
def test_a_blend_that_finds_nothing_to_change_is_the_source(toy_pipe, cache, inversion):
    """At threshold 1 no place is above its maximum: the edit is the source's own latents."""
    pipe = wrap(toy_pipe)
    out = run(pipe, cache, inversion=inversion, blend="dog=cat", blend_threshold=1.0, blend_start=0.0)
    if inversion == "direct":
        assert torch.equal(out.images, Engine(pipe).encode_images([picture()]))
    assert out.cost["row_forwards"] == 2 * STEPS + (2 if inversion == "ddim" else 1) * STEPS
    wide = run(pipe, cache, inversion=inversion, blend="dog=cat", blend_threshold=0.0, blend_start=0.0).images
    near(wide, run(pipe, cache, inversion=inversion).images)


def test_words_of_their_own_windows(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    whole = run(pipe, cache, cross_stop=0.4).images
    assert torch.equal(run(pipe, cache, cross_stop=0.4, cross_words="cat=0.4").images, whole)
    assert not torch.equal(run(pipe, cache, cross_stop=0.4, cross_words="cat=0.8").images, whole)
    alignment = align(sequence(pipe), [SOURCE], ["a cat"], "auto", "cat=3", 0.5, "cat=0.2")
    source, own = torch.rand(1, 1, 4, 77), torch.rand(1, 1, 4, 77)
    late = alignment.mix(source, own, Step(1, 5, 0))
    columns = torch.zeros(77, dtype=torch.bool)
    columns[2:5] = True  # c a t
    assert torch.equal(late[..., columns], own[..., columns])
    assert torch.equal(late[..., ~columns], alignment.mix(source, own)[..., ~columns])
