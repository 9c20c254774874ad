"""pix2pix-zero against diffusers' own pipeline, its limiting cases, and what it leaves behind."""

import copy
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, StableDiffusionPipeline, StableDiffusionPix2PixZeroPipeline
from method_kit import check_unet_restored, picture, wrap
from torch import Tensor
from toy import clean_and_noise

from freectl.denoising.cost import Cost
from freectl.denoising.noise_prior import NoisePrior, auto_correlation, divergence
from freectl.denoising.sampler import Lane, Step
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.pix2pix_zero.directions import direction, sentence_sets
from freectl.methods.pix2pix_zero.guide import CrossAttentionGuide
from freectl.methods.pix2pix_zero.method import Pix2PixZero, Pix2PixZeroSettings
from freectl.models.engine import Engine
from freectl.models.families.unet import cross_attentions
from freectl.tasks.options import validated

STEPS = 3
SCALE = 4.0
SOURCE = "a dog"
TOYS = ["toy_pipe", "toy_pipe_v", "toy_xl_pipe"]
FEW = {"sentences": 4, "rounds": 0}


@pytest.fixture(params=TOYS)
def pipe(request) -> Any:
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def run(pipe: Any, cache: Cache | None = None, prompt: Any = "a cat", image: Any = None, **options: Any):
    few = {} if "settings" in options else FEW
    options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "source_prompt": SOURCE} | few | options
    return pipe(prompt, image or picture(), method=Pix2PixZero(), cache=cache, output_type="latent", **options)


def near(got: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=share * float(expected.abs().max()))


# The regularised inversion


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 3, 32, 16)])
def test_energies_equal_those_of_diffusers(shape):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1.2 + 0.1
    theirs = StableDiffusionPix2PixZeroPipeline
    mine = auto_correlation(noise, torch.Generator().manual_seed(3))
    torch.testing.assert_close(mine, theirs.auto_corr_loss(None, noise, torch.Generator().manual_seed(3)))
    torch.testing.assert_close(divergence(noise), theirs.kl_divergence(None, noise))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_prior_takes_the_published_steps(kind):
    """The published loop written out, on the gradient of the same energies with respect to the model output."""
    output, latents = (torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(s)) * 1.3 for s in (1, 2))
    abar, generator, expected = torch.tensor(0.4, dtype=torch.float64), torch.Generator().manual_seed(0), output
    theirs = StableDiffusionPix2PixZeroPipeline
    for _ in range(2):
        for _ in range(3):
            variable = expected.clone().requires_grad_(True)
            theirs.auto_corr_loss(None, clean_and_noise(kind, variable, latents, abar)[1], generator).backward()
            expected = expected - 20.0 * variable.grad / 3
        variable = expected.clone().requires_grad_(True)
        theirs.kl_divergence(None, clean_and_noise(kind, variable, latents, abar)[1]).backward()
        expected = expected - 20.0 * variable.grad
    got = NoisePrior(rounds=2, rolls=3).adjustment()(output, lambda one: clean_and_noise(kind, one, latents, abar), 0.0)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    before, after = (divergence(clean_and_noise(kind, one, latents, abar)[1]) for one in (output, got))
    assert after < before


def test_a_prior_is_another_inversion_and_repeats(toy_pipe):
    engine = Engine(wrap(toy_pipe))
    plain = engine.invert(picture(), "", engine.path(STEPS))
    first, second = (engine.invert(picture(), "", engine.path(STEPS), prior=NoisePrior(rounds=1)) for _ in range(2))
    assert torch.equal(first[0].start, second[0].start)
    assert not torch.equal(first[0].start, plain[0].start)
    assert first[1] == second[1] != plain[1]


# Directions


def test_directions_come_from_the_words_that_differ():
    mini = "a noto fox on a red background", "a fluent cat on a red background"
    sets = sentence_sets(*mini, (), "mini", 3)
    assert [len(source) for source, _ in sets] == [3, 3]
    for (source, target), (old, new) in zip(sets, (("noto", "fluent"), ("fox", "cat")), strict=True):
        assert [s.replace(old, new) for s in source] == target
        assert len(set(source)) == 3
    (everything,) = sentence_sets("a photo of a horse", "a photo of a zebra", (), "photos", 1000)
    assert len(set(everything[0])) == len(set(everything[1])) == 1000
    assert all("horse" in one for one in everything[0])
    added = "a horse", "a bronze horse"
    assert sentence_sets(*added, (), "photos", 5) == [([added[0]], [added[1]])]
    (given,) = sentence_sets(*mini, [("apple", "orange")], "photos", 2)
    assert all(" an apple " in one for one in given[0])
    with pytest.raises(InputError, match="words of one kind"):
        sentence_sets(*mini, [("fox", "noto")], "mini", 2)


def test_direction_equals_that_of_diffusers(toy_pipe):
    sets = sentence_sets("a dog", "a cat", (), "mini", 5)
    theirs = StableDiffusionPix2PixZeroPipeline
    parts = SimpleNamespace(tokenizer=toy_pipe.tokenizer, text_encoder=toy_pipe.text_encoder)
    source, target = (theirs.get_embeds(parts, texts) for texts in sets[0])
    got = direction(Engine(wrap(toy_pipe)), sets).cond
    torch.testing.assert_close(got, theirs.construct_direction(None, source, target), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", ["cat", "cat=", "=dog", "a=b=c"])
def test_unreadable_directions_are_refused(wrong):
    with pytest.raises(InputError, match="source=target"):
        validated(Pix2PixZeroSettings, {"direction": wrong}, prefix="--set")


# The whole edit


@pytest.mark.parametrize("toy", ["toy_pipe", "toy_pipe_v"])
def test_the_published_form_equals_diffusers(request, toy):
    """Both passes from the same latents, negative prompt = source prompt, one step for each half's latents."""
    toy = request.getfixturevalue(toy)
    pipe = wrap(toy)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    got = run(pipe, latents=noise, steer="halves", xa_guidance=30.0)
    parts = {name: getattr(toy, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    names = ("safety_checker", "feature_extractor", "caption_generator", "caption_processor")
    theirs = StableDiffusionPix2PixZeroPipeline(
        **parts,
        unet=copy.deepcopy(toy.unet),
        inverse_scheduler=DDIMInverseScheduler.from_config(toy.scheduler.config),
        requires_safety_checker=False,
        **dict.fromkeys(names),
    )
    theirs.set_progress_bar_config(disable=True)
    sets = sentence_sets(SOURCE, "a cat", (), "mini", FEW["sentences"])
    change = direction(Engine(pipe), sets).cond
    expected = theirs(
        SOURCE,
        source_embeds=torch.zeros_like(change),
        target_embeds=change,
        height=32,
        width=32,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        negative_prompt=SOURCE,
        latents=noise,
        cross_attention_guidance_amount=30.0,
        output_type="latent",
        return_dict=False,
    )[0]
    near(got.images, expected)
    assert float((got.images - run(pipe, latents=noise, xa_guidance=0.0).images).abs().max()) > 1e-3


@pytest.mark.parametrize("toy", ["toy_pipe", "toy_pipe_v"])
def test_the_published_inversion_is_diffusers_own(request, toy):
    """Its regularisation draws shifts of its own; switched off here, it is told the upper timestep."""
    toy = request.getfixturevalue(toy)
    pipe = wrap(toy)
    x, text = Engine(pipe).encode_images([picture()]), Engine(pipe).encode_prompt([SOURCE]).cond
    inverse = DDIMInverseScheduler.from_config(toy.scheduler.config)
    inverse.set_timesteps(STEPS)
    for time in inverse.timesteps:
        with torch.no_grad():
            x = inverse.step(pipe.unet(x, time, encoder_hidden_states=text).sample, time, x).prev_sample
    settings = Pix2PixZeroSettings(**Pix2PixZero.presets["published"] | FEW | {"rounds": 0, "xa_guidance": 0.0})
    near(run(pipe, settings=settings).images, run(pipe, settings=settings, latents=x).images)
    lower = settings.model_copy(update={"inversion_at": "lower"})
    assert not torch.allclose(run(pipe, settings=lower).images, run(pipe, settings=settings).images, atol=1e-3)


def test_without_guidance_it_is_plain_sampling_with_the_moved_prompt(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    engine = Engine(pipe, cache=cache)
    start = engine.invert(picture(), SOURCE, engine.path(STEPS))[0].start
    change = direction(engine, sentence_sets(SOURCE, "a cat", (), "mini", FEW["sentences"])).cond
    source = engine.encode_prompt([SOURCE], [SOURCE])
    reference = StableDiffusionPipeline.from_pipe(pipe)
    reference.set_progress_bar_config(disable=True)
    expected = reference(
        prompt_embeds=source.cond + change,
        negative_prompt_embeds=source.uncond,
        latents=start,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
    ).images
    got = run(pipe, cache, xa_guidance=0.0)
    assert torch.equal(got.images, expected)
    assert got.cost["row_forwards"] == 2 * STEPS


def test_an_equal_prompt_is_the_reconstruction(pipe, cache):
    engine = Engine(pipe, cache=cache)
    engine.timesteps(STEPS)
    free = run(pipe, cache, SOURCE, xa_guidance=0.0).images
    near(run(pipe, cache, SOURCE, xa_guidance=1.0).images, free)


@torch.no_grad()
def test_a_step_brings_the_maps_nearer(pipe):
    engine = Engine(pipe)
    engine.timesteps(STEPS)
    latents = engine.noise((32, 32), [torch.Generator().manual_seed(0)])
    edit = Lane(latents, engine.encode_prompt(["a cat"], [SOURCE]), SCALE)
    lanes = {"source": Lane(latents, engine.encode_prompt([SOURCE])), "edit": edit}
    guide = CrossAttentionGuide(cross_attentions(pipe.unet), 1.0, True, {}, Cost())
    for _ in range(2):
        guide.predict(Step(0, STEPS, 501), lanes, engine.denoiser)
    before, after = (one["cross_attention"] for one in guide.trace)
    assert 0 < after < before


@pytest.mark.parametrize(
    "change",
    [{"negative": "given"}, {"steer": "halves"}, {"source_row": "held"}, {"rounds": 1}, {"direction": "dog=fox"}],
)
def test_settings_change_the_result(toy_pipe, cache, change):
    pipe = wrap(toy_pipe)
    default = run(pipe, cache, xa_guidance=30.0).images
    assert not torch.equal(run(pipe, cache, xa_guidance=30.0, **change).images, default)


def test_blocks_that_run_again_give_the_same_picture(pipe, cache):
    """To the bit, with the network as it was; and they did run again."""
    run(pipe, cache, xa_guidance=0.0)  # the inversion is there from now on
    runs, results, counts = [], [], []
    block = pipe.unet.up_blocks[1].resnets[0].register_forward_pre_hook(lambda *_: runs.append(1))
    for choice in ("off", "on"):
        runs.clear()
        results.append(run(pipe, cache, xa_guidance=30.0, checkpointing=choice))
        counts.append(len(runs))
    block.remove()
    assert torch.equal(results[0].images, results[1].images)
    assert results[0].trace == results[1].trace
    assert counts == [3 * STEPS, 4 * STEPS]  # source, guidance, edit, and guidance again
    assert not pipe.unet.is_gradient_checkpointing


def test_batch_equals_singles(pipe, cache):
    both = run(pipe, cache, ["a cat", "a red fox"], [picture(), picture(1)], xa_guidance=30.0).images
    for i, text in enumerate(("a cat", "a red fox")):
        near(both[i : i + 1], run(pipe, cache, text, picture(i), xa_guidance=30.0).images)


@pytest.mark.parametrize(
    ("options", "rows", "backwards"),
    [({}, 5, 2), ({"negative": "given"}, 6, 2), ({"xa_guidance": 0.0}, 2, 0), ({"guidance_scale": 1.0}, 3, 1)],
)
def test_rows_follow_the_formula(toy_pipe, options, rows, backwards):
    """Published: N + 2 N + 2 N (with backward) + 2 N; a source prompt that is its own negative needs one row."""
    cost = run(wrap(toy_pipe), **options).cost
    assert cost["row_forwards"] == STEPS * (1 + rows)
    assert cost["row_backwards"] == STEPS * backwards


def test_the_published_cost_at_50_steps():
    words = Pix2PixZero().row_forwards(50, Pix2PixZeroSettings(negative="given"))
    assert words == "inversion 50 + source 100 + guidance 100 + synthesis 100 (+ 100 row backwards)"


def test_no_source_prompt_is_told(toy_pipe):
    assert "no words" in run(wrap(toy_pipe), source_prompt="").warnings[0]


def test_unet_is_as_before_after_a_failing_callback(toy_pipe, cache):
    pipe = wrap(toy_pipe)
    check_unet_restored(pipe, lambda fail: run(pipe, cache, callback_on_step_end=fail), step=1)
    assert all(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_prompt_files_that_the_package_reads_are_in_the_wheel():
    root = Path(__file__).parents[2]
    included = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in (root / "freectl").rglob("*.py"))
    names = re.findall(r'prompts_file\("([^"]+)"\)', code)
    assert "directions.yaml" in names
    for name in names:
        assert included["force-include"][f"prompts/{name}"] == f"freectl/prompts/{name}"
        assert (root / "prompts" / name).is_file()
