"""Whole runs of the methods on a transformer: limiting cases, batches, costs, and what they leave behind."""

from typing import Any

import numpy as np
import pytest
import torch
from flow_toy import small_sd3
from PIL import Image
from torch import Tensor

from freectl import methods
from freectl.denoising.attention_layers import picture_sites
from freectl.denoising.injection import Injection, SourceInjector
from freectl.denoising.sampler import Controller, Lane, Prompt, sample
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.ctrlx import CtrlX
from freectl.methods.p2p.align import align, joined
from freectl.methods.p2p.maps import MapInjector
from freectl.models.engine import Engine
from freectl.models.families import SD
from freectl.tasks.compare import FirstEdits

SIZE, LATENT = (48, 32), (8, 12)
STEPS = 3
SOURCE, TARGET = "a dog on grass", "a red cat on grass"


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


OFF = {
    "pnp": {"attention_stop": 0.0},
    "masactrl": {"start": 1.0},
    "p2p": {"cross_stop": 0.0, "self_stop": 0.0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pipe = small_sd3(tmp_path_factory.mktemp("whole"))
    cache = Cache(tmp_path_factory.mktemp("cache"))

    def call(name: str, prompt: Any = TARGET, image: Any = None, **options: Any) -> Any:
        given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "output_type": "latent", "cache": cache,
                 "source_prompt": SOURCE, "method": methods.get(name)}  # fmt: skip
        return pipe(prompt, None if "conditions" in options else image or picture(), **given | options)

    call.pipe, call.cache = pipe, cache
    return call


@pytest.mark.parametrize("name", OFF)
def test_empty_windows_are_plain_sampling_from_the_inverted_latent(run, name):
    engine = Engine(run.pipe)
    engine.size = SIZE
    path = engine.path(STEPS)
    start = engine.invert(picture(), SOURCE, path)[0].start
    lane = Lane(start, engine.encode_prompt([TARGET], [""]), 3.0)
    expected = sample(engine.denoiser, path, {"edit": lane}, path.times)["edit"].latents
    got = run(name, **OFF[name]).images
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (run(name).images - got).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["pnp", "masactrl", "p2p"])
def test_an_equal_prompt_and_its_own_trajectory_are_the_reconstruction(run, name):
    """Whatever is copied from rows that are the same changes nothing."""
    engine, path = Engine(run.pipe), Engine(run.pipe).path(STEPS)
    drawn = torch.randn(1, 4, *LATENT, generator=torch.Generator().manual_seed(0))
    prompt, own = engine.encode_prompt([SOURCE]), {}

    class Record(Controller):
        def before(self, step, lanes):
            own[step.timestep] = lanes["edit"].latents

    expected = sample(engine.denoiser, path, {"edit": Lane(drawn, prompt)}, path.times, Record())["edit"].latents
    layers, crossed = engine.family.self_layers(engine.network), engine.family.cross_layers(engine.network)
    sites = picture_sites(layers, "kv" if name == "masactrl" else "qk")
    injector = SourceInjector(own, [Injection(sites)])
    if name == "p2p":
        alignment = joined([align(one, [SOURCE], [SOURCE], "auto") for one in engine.text.sequences])
        both = [Injection(sites), Injection(tuple(layer.name for layer in crossed))]
        injector = MapInjector(own, both, alignment, 1.0, crossed)
    lanes = {name: Lane(drawn, prompt) for name in ("edit", "source")}
    got = sample(engine.denoiser, path, lanes, path.times, injector)["edit"].latents
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


BATCHED = {
    "pnp": {},
    "masactrl": {"words": "dog=cat", "start": 0.0, "layer_start": 0.0},
    "p2p": {"blend": "dog=cat"},
    "ctrlx": {"recurrences": 1},
    "freecontrol": {"mask": "attention", "concept": "dog", "seeds": 2, "seed_steps": STEPS, "components": 3},
}


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_its_pictures_one_by_one(run, name):
    prompts, pictures = [TARGET, "a cat on grass"], [picture(0), picture(1)]

    def call(which: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in which]
        chosen = [prompts[i] for i in which], [pictures[i] for i in which]
        return run(name, *chosen, generator=generators, **BATCHED[name]).images

    both = call([0, 1])
    assert torch.isfinite(both).all()
    for i in range(2):
        alone = call([i])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=2e-4 * float(alone.abs().max()))


def test_settings_of_what_a_transformer_lacks_are_refused(run):
    assert run("pnp").settings.feature_stop == 0.0
    assert run("pnp").settings.attention_stop == 0.2
    with pytest.raises(InputError, match="feature_stop: found 0.5 on a sd3 model, which has no residual blocks"):
        run("pnp", feature_stop=0.5)


def test_a_background_is_kept_by_attention(run):
    """The same function finds the word for the page, for --mask and for --keep-background."""
    out = run("sdedit", keep="background", keep_concept="dog", output_type="pil", strength=0.7)
    kept = np.asarray(out.kept[0]) > 127
    assert 0 < kept.mean() < 1
    assert np.array_equal(np.asarray(out.images[0])[kept], np.asarray(picture())[kept])


@pytest.mark.parametrize("name", ["masactrl", "p2p", "ctrlx"])
def test_an_exception_leaves_no_hooks(run, name):
    def fail(_pipe, _index, _timestep, _tensors):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        run(name, callback_on_step_end=fail, **BATCHED[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.pipe.transformer.modules())


def test_ctrlx_follows_its_pictures(run):
    """With windows of nothing it is plain stochastic sampling; structure and appearance each change that."""
    assert "appearance_image" in CtrlX.inputs
    free = run("ctrlx", structure_stop=0.0, appearance_stop=0.0, recurrences=0, sampler_eta=0.0,
               generator=torch.Generator().manual_seed(0)).images  # fmt: skip
    engine = Engine(run.pipe)
    engine.size = SIZE
    start, path = engine.noise(SIZE, [torch.Generator().manual_seed(0)]), engine.path(STEPS)
    lane = Lane(start, engine.encode_prompt([TARGET], [""]), 3.0)
    expected = sample(engine.denoiser, path, {"edit": lane}, path.times)["edit"].latents
    torch.testing.assert_close(free, expected, rtol=0, atol=1e-5)
    for window in ({"structure_stop": 1.0}, {"appearance_stop": 1.0}):
        given = {"structure_stop": 0.0, "appearance_stop": 0.0, "recurrences": 0, "sampler_eta": 0.0} | window
        other = run("ctrlx", generator=torch.Generator().manual_seed(0), appearance_image=picture(3), **given).images
        assert (other - free).abs().max() > 1e-3


def test_flowaligns_step_is_written_out(run):
    """Arxiv 2505.23145: guidance away from the source prompt, and a pull of the edit's picture to the source's."""
    engine = Engine(run.pipe)
    engine.size = SIZE
    clean, path = engine.encode_images([picture()]), engine.path(STEPS)
    source, target = (engine.encode_prompt([text]) for text in (SOURCE, TARGET))
    levels, drawn, x = [*(time / 1000 for time in path.times), 0.0], torch.Generator().manual_seed(5), clean.clone()

    def velocity(latents: Tensor, s: float, prompt: Prompt) -> Tensor:
        with torch.no_grad():
            return engine.denoiser.forward(latents, 1000 * s, prompt.cond, dict(prompt.added["cond"]))

    for s, below in zip(levels, levels[1:], strict=False):
        q = (1 - s) * clean + s * torch.randn(clean.shape, generator=drawn)
        p = x + q - clean
        v_q, v_p = velocity(q, s, source), velocity(p, s, source)
        v_p = v_p + 3.0 * (velocity(p, s, target) - v_p)
        x = x + (below - s) * (v_p - v_q) + 0.1 * ((q - s * v_q) - (p - s * v_p))
    out = run("flowedit", strength=1.0, against="source", alignment=0.1, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(out.images, x, rtol=0, atol=2e-5)
    assert out.cost["row_forwards"] == 3 * STEPS
    assert methods.get("flowedit").row_forwards(STEPS, out.settings) == f"synthesis {3 * STEPS}"


INVERTED = {"pnp": {}, "masactrl": {}, "p2p": {}, "freecontrol": BATCHED["freecontrol"] | {"mask": None}}


@pytest.mark.parametrize("name", INVERTED)
def test_every_inverting_method_takes_an_inverter_at_its_cost(run, name):
    """The rows of the inversion change by those that the inverter is counted at; the rest stays."""
    rows = {}
    for inverter in ("euler", "midpoint", "uniedit"):
        out = run(name, inverter=inverter, cache=FirstEdits(run.cache), **INVERTED[name])
        rows[inverter] = out.cost["row_forwards"]
    assert rows["midpoint"] - rows["euler"] == pytest.approx(STEPS)
    if name != "freecontrol":  # whose reference is then read behind the inversion
        assert rows["uniedit"] - rows["euler"] == 1
    with pytest.raises(InputError, match="inversion_at: found upper with inverter=midpoint"):
        run(name, inverter="midpoint", inversion_at="upper", **INVERTED[name])


def test_inverters_of_flows_are_refused_elsewhere():
    for name in INVERTED:
        method = methods.get(name)
        with pytest.raises(InputError, match="inverter: found fireflow on a sd model, which is no flow"):
            method.resolved(method.settings(inverter="fireflow"), SD)


def test_several_conditions_masked_by_words_and_an_appearance(run):
    """Each condition inside its own word's mask; leaving one out, or the appearance, changes the result."""
    given = {"source_prompt": "", "seeds": 2, "seed_steps": STEPS, "components": 3, "appearance_weight": 0.5}
    both = [Condition(picture(0), "a dog on grass", "dog", "attention"), Condition(picture(1), "a cat on grass", "cat")]

    def call(conditions: list[Condition], **more: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return run("freecontrol", conditions=conditions, generator=generator, **given, **more).images

    whole = call(both, appearance_image=picture(3))
    assert whole.shape == (1, 4, *LATENT)
    assert torch.isfinite(whole).all()
    for other in (call(both[:1], appearance_image=picture(3)), call(both)):
        assert (other - whole).abs().max() > 1e-3
