"""PixArt-Sigma, Qwen-Image and Z-Image against diffusers' own pipelines, on tiny random models of their topology."""

import copy
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.normalization import RMSNorm
from diffusers.utils import convert_state_dict_to_diffusers
from dit_toys import SIZE, TOYS, Toy, z_image_pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from freectl import methods
from freectl.denoising.attention_layers import picture_sites
from freectl.denoising.sampler import Lane, Prompt, Step
from freectl.denoising.taps import tap
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.methods.freecontrol.guide import FreeControlGuide, Target
from freectl.methods.freecontrol.settings import FreeControlSettings as Settings
from freectl.models import families
from freectl.models.engine import Engine
from freectl.models.families import qwen_image, z_image
from freectl.pipelines import lora
from freectl.pipelines.loading import check_method, load_pipeline, resolve_model
from freectl.semantics.bases import Basis, SemanticBases
from freectl.semantics.reference import Reference

STEPS = 3
SHARED = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "negative_prompt": "grey"}
FEW = {"seeds": 2, "seed_steps": STEPS, "components": 3, "concept": "cat"}


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=TOYS)
def world(request, tmp_path_factory) -> SimpleNamespace:
    toy: Toy = TOYS[request.param]
    plain = toy.build(tmp_path_factory.mktemp(request.param))
    pipe = toy.wrap(plain)
    engine = Engine(pipe)
    engine.size = SIZE
    return SimpleNamespace(toy=toy, plain=plain, pipe=pipe, engine=engine, cache=Cache())


@pytest.fixture
def small_seeds(monkeypatch):
    """Seed pictures as if the models that do not say their size were made for 16 cells a side."""
    for module in (qwen_image, z_image):
        monkeypatch.setattr(module, "SIDE", 16)


def sdedit(pipe: Any, prompt: Any = "a cat", image: Any = None, strength: float = 1.0, **options: Any) -> Any:
    given = SHARED | {"output_type": "latent", "method": methods.get("sdedit"), "strength": strength} | options
    return pipe(prompt, image or picture(), **given).images


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))


def start(world: SimpleNamespace) -> torch.Tensor:
    """Latents that SDEdit at strength 1 begins with for the noise of `Toy.noise`: on VP paths not the noise alone."""
    clean, path = world.engine.encode_images([picture()]), world.engine.path(STEPS)
    return path.noised(clean, world.toy.noise(), path.times[0])


def test_published_transformers_have_exactly_these_layers(world):
    """At full size, without weights; the toy has the same family, and its latents the pipeline's own number."""
    with torch.device("meta"):
        network = world.toy.full()
    family, (name, blocks, depth) = families.of(network), world.toy.keys
    assert family is world.engine.family
    assert family.structure_sites(network) == [name.format(block) for block in blocks]
    assert family.structure_sites(network, "last") == [name.format(blocks[-1])]
    assert set(family.structure_sites(network)) <= dict(network.named_modules()).keys()
    layers = [layer.name for layer in family.self_layers(network)]
    assert len([layer for layer in layers if layer.startswith(name.partition(".")[0])]) == depth
    total = sum(weight.numel() for weight in network.parameters())
    assert total == pytest.approx(world.toy.parameters * 1e9, rel=0.01)
    assert family.latent_shape(network)[1:] == (128, 128)


def test_text_to_image_is_diffusers_own(world):
    """From the same latents, not square; pictures too."""
    expected = world.toy.sampled(world.plain, start(world), STEPS, 4.0)
    assert expected.shape == (1, 4, *world.toy.cells)
    close(sdedit(world.pipe, latents=world.toy.noise()), expected)
    shown = world.toy.sampled(world.plain, start(world), STEPS, 4.0, output_type="np")
    got = sdedit(world.pipe, latents=world.toy.noise(), output_type="np")
    assert got.shape == (1, SIZE[1], SIZE[0], 3)
    np.testing.assert_allclose(got, shown, atol=1e-5)


def test_image_to_image_is_diffusers_own(world):
    """To the bit at equal noise, where both guide in the same order of sums.

    Diffusers runs Qwen-Image's halves in two calls and adds Z-Image's difference to the conditional half: other
    rounding of the same guided output, of which one row without guidance has none.
    """
    drawn = torch.randn(1, 4, *world.toy.cells, generator=torch.Generator().manual_seed(3))
    clean = world.engine.encode_images([picture()])
    for scale in (1.0, 4.0):
        expected = world.toy.changed(world.plain, clean, drawn, STEPS + 1, 0.5, scale)
        got = sdedit(world.pipe, strength=0.5, latents=drawn, num_inference_steps=STEPS + 1, guidance_scale=scale)
        close(got, expected)
        assert (scale > 1 and world.engine.family.flow) or torch.equal(got, expected)


def test_texts_of_unequal_length_make_one_batch(world):
    """Rows of a batch are the single pictures, also where one text is longer than the other."""
    prompts, pictures = ["a cat", "a red dog sitting on grass"], [picture(0), picture(1)]
    given = SHARED | {"source_prompt": "a dog", "output_type": "latent", "num_inference_steps": 2}
    names = ["sdedit", "flowedit", "ddpm-inversion", "pnp", "rf-inversion", "masactrl", "p2p", "ctrlx"]
    names = [name for name in names if world.engine.family.runs(name)]
    for name in names:

        def run(which: list[int], name: str = name) -> torch.Tensor:
            generators = [torch.Generator().manual_seed(i) for i in which]
            texts, images = [prompts[i] for i in which], [pictures[i] for i in which]
            return world.pipe(texts, images, generator=generators, method=methods.get(name), **given).images

        both = run([0, 1])
        close(both[:1], run([0]), 2e-5)
        if name == "sdedit":
            close(both[1:], run([1]), 2e-5)


def test_the_pictures_tokens_are_told_from_the_texts(world):
    """At the first joint layer they do not depend on the text yet, nor on its length; what is copied is they alone."""
    engine, family = world.engine, world.engine.family
    prompts = [engine.encode_prompt([text]) for text in ("a cat", "a red dog sitting on grass")]
    lanes = {str(i): Lane(world.toy.noise(), prompt) for i, prompt in enumerate(prompts)}
    layer = family.self_layers(engine.network)[0]
    sites, parts = picture_sites([layer], "qkv"), family.parts(engine.network, world.toy.cells)
    with torch.no_grad(), tap(engine.network, sites) as seen:
        engine.denoiser.rows(lanes, [("0", "cond"), ("1", "cond")], engine.path(STEPS).times[1])
    for site, value in seen.pop_all().items():
        own = parts[site].of(value)
        close(own[:1], own[1:])
        assert parts[site].tokens(value) == world.toy.cells[0] * world.toy.cells[1] // 4


def test_freecontrol_pulls_towards_structure_in_batches_too(world, small_seeds):
    run = partial(world.pipe, num_inference_steps=STEPS, cache=world.cache, output_type="latent", guidance_scale=3.0,
                  source_prompt="a dog", appearance_weight=0.1, **FEW)  # fmt: skip
    prompts, pictures = ["a cat", "a red dog sitting on grass"], [picture(0), picture(1)]
    both = run(prompts, pictures)
    assert all(entry["structure"] > 0 for entry in both.trace)
    close(both.images[:1], run(prompts[0], pictures[0]).images, 2e-4)
    free, guided = (run("a cat", picture(), structure_strength=w, start="noise",
                        generator=torch.Generator().manual_seed(0)) for w in (1e-9, 1.0))  # fmt: skip
    assert guided.trace[-1]["structure"] < free.trace[-1]["structure"]
    again = run("a cat", picture(5))
    seen = world.engine.path(STEPS).times
    sibling = 2 * (seen.index(min(entry["timestep"] for entry in again.trace)) + 1)
    share = again.cost["row_forwards"] - (STEPS + sibling + 2 * STEPS)  # of the one level that no inversion passes
    last, depth = last_block(world), len(world.engine.family.self_layers(world.engine.network))
    assert last / depth - 0.1 < share < (last + 1) / depth + 0.1
    made = run("a cat", conditions=[Condition(picture(), "a dog", "cat")], source_prompt="", concept=None,
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert torch.isfinite(made.images).all()


def last_block(world: SimpleNamespace) -> int:
    """Number of the last block that is tapped."""
    site = world.engine.family.structure_sites(world.engine.network)[-1]
    return next(int(part) for part in site.split(".") if part.isdecimal())


def test_bf16_is_diffusers_own(world):
    """At 4 times the rounding of a value: random networks amplify it."""
    narrow = copy.deepcopy(world.plain).to(torch.bfloat16)
    wrapped = world.toy.wrap(narrow)
    engine = Engine(wrapped)
    engine.size = SIZE
    clean, path = engine.encode_images([picture()]), engine.path(STEPS)
    noise = world.toy.noise()
    expected = world.toy.sampled(narrow, world.toy.dtype_of(path.noised(clean, noise.bfloat16(), path.times[0])),
                                 STEPS, 4.0)  # fmt: skip
    got = sdedit(wrapped, latents=noise)
    assert got.dtype == expected.dtype
    assert (got.float() - expected.float()).norm() <= 0.03 * expected.float().norm()


def test_inversion_error_shrinks_with_steps(world):
    """Sampling without guidance from the inverted latents comes back to the picture, nearer with more steps."""
    engine, errors = world.engine, []
    clean, prompt = engine.encode_images([picture()]), engine.encode_prompt(["a dog"])
    for steps in (8, 24):
        path = engine.path(steps)
        latents = engine.invert(picture(), "a dog", path)[0].start
        with torch.no_grad():
            for time in path.times:
                output = engine.denoiser.forward(latents, time, prompt.cond, dict(prompt.added["cond"]))
                latents = path.step(output, latents, time)
        errors.append(float((latents - clean).square().mean().sqrt() / clean.std()))
    assert errors[0] > 1.7 * errors[1]


def wide_norm(module: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.eps) * module.weight


def test_the_gradient_is_that_of_finite_differences(world, monkeypatch):
    """In float64, of both energies, through attention to the text and positions."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # rotations are taken in fp32 otherwise
    wide = world.toy.wrap(copy.deepcopy(world.plain)).to(torch.float64)
    for module in wide.transformer.modules():
        if isinstance(module, RMSNorm):
            module.forward = partial(wide_norm, module)
    engine, generator = Engine(wide), torch.Generator().manual_seed(0)
    sites, path = engine.family.structure_sites(engine.network), engine.path(STEPS)
    time, step = path.times[1], Step(1, STEPS, path.times[1])

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    latents, prompt = noise(1, 4, 8, 12), engine.encode_prompt(["a cat"])
    width = features(engine, sites, latents, prompt, time)[sites[0]].shape[-1]
    basis = {(time, site): Basis(noise(width), torch.linalg.qr(noise(width, 3))[0].T, torch.ones(3)) for site in sites}
    reference = Reference({key: noise(1, 24, 3) for key in basis})
    target = Target(SemanticBases(basis), reference, {key: noise(1, 2, width) for key in basis})
    window = {"window_level": 0.1} if engine.family.flow else {"window_stop": 1.0}
    settings = Settings(update="official", structure_weight=3.0, appearance_weight=2.0, normalize="none",
                        appearance_gate="sigmoid", warmup=0.0, **window)  # fmt: skip
    guide = FreeControlGuide(path, settings, [target], sites)
    _, change = guide._edit_row(step, Lane(latents, prompt), engine.denoiser)
    gradient = change / path.guidance_length(time)
    for place in ((0, 0, 0, 0), (0, 2, 5, 7), (0, 3, 7, 11)):
        nudge = torch.zeros_like(latents)
        nudge[place] = 1e-5
        up, down = (
            float(guide._energy(step, features(engine, sites, latents + sign * nudge, prompt, time)).sum())
            for sign in (1, -1)
        )
        assert float(gradient[place]) == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-9)


def features(engine: Engine, sites: list[str], latents: torch.Tensor, prompt: Prompt, time: float) -> dict:
    with torch.no_grad(), tap(engine.network, sites) as seen:
        engine.denoiser.rows({"edit": Lane(latents, prompt)}, [("edit", "cond")], time)
        return engine.denoiser.features(seen.pop_all(), latents)


def test_an_exception_leaves_the_network_as_it_was(world, small_seeds):
    before = state_of(world.pipe.transformer)

    def fail(_pipe, _index, _timestep, _tensors):
        raise RuntimeError("from the callback")

    for name in ("sdedit", "freecontrol"):
        with pytest.raises(RuntimeError, match="from the callback"):
            world.pipe("a cat", picture(), num_inference_steps=STEPS, method=methods.get(name), cache=world.cache,
                       callback_on_step_end=fail, **(FEW if name == "freecontrol" else {}))  # fmt: skip
    assert state_of(world.pipe.transformer) == before


def state_of(network: Any) -> tuple:
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in network.modules()]
    processors = [id(m.processor) for m in network.modules() if hasattr(m, "processor")]
    return hooks, processors, [weight.requires_grad for weight in network.parameters()]


def test_callbacks_and_embeddings(world):
    """Callbacks see both halves; embeddings with their masks stand for texts."""
    seen = []

    def watch(_pipe, _index, _timestep, tensors):
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return tensors

    plain = sdedit(world.pipe, latents=world.toy.noise())
    got = sdedit(world.pipe, latents=world.toy.noise(), callback_on_step_end=watch,
                 callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])  # fmt: skip
    close(got, plain)
    assert len(seen) == STEPS
    assert seen[0]["latents"] == (1, 4, *world.toy.cells)
    assert seen[0]["prompt_embeds"][0] == 2
    prompt = world.engine.encode_prompt(["a cat"], ["grey"])
    masks = {name: prompt.added[half]["text_mask"].long()
             for name, half in zip(world.pipe.text_arguments, ("cond", "uncond"), strict=True)}  # fmt: skip
    given = {"prompt_embeds": prompt.cond, "negative_prompt_embeds": prompt.uncond, "negative_prompt": None}
    close(sdedit(world.pipe, None, latents=world.toy.noise(), **given, **masks), plain)


def test_it_saves_and_opens_by_either_class_and_by_model(world, tmp_path):
    world.pipe.save_pretrained(tmp_path)
    assert type(type(world.plain).from_pretrained(tmp_path)) is type(world.plain)
    opened = load_pipeline(resolve_model(str(tmp_path)), device="cpu", dtype=torch.float32)
    assert type(opened) is type(world.pipe)
    opened.set_progress_bar_config(disable=True)
    close(sdedit(opened, latents=world.toy.noise()), sdedit(world.pipe, latents=world.toy.noise()))


def test_what_it_cannot_do_is_refused_in_one_line(world):
    name = world.engine.family.name
    multiple = world.engine.working_multiple
    with pytest.raises(InputError, match=f"width: found {SIZE[0] + multiple // 2}; allowed: a multiple of {multiple}"):
        sdedit(world.pipe, width=SIZE[0] + multiple // 2)
    with pytest.raises(InputError, match=f"method: found pix2pix-zero, which does not run on {name} models"):
        world.pipe("a cat", picture(), method=methods.get("pix2pix-zero"))
    with pytest.raises(InputError, match=f"long_prompts: found a {name} model"):
        sdedit(world.pipe, long_prompts=True)
    if name == "z-image":  # the others' text is read: tests/methods/test_masked_text.py, test_packed_attention.py
        asked = {"mask": "attention", "concept": "cat", "source_prompt": "a cat"}
        with pytest.raises(InputError, match=f"mask: found attention on a {name} model, whose attention is not read"):
            world.pipe("a cat", picture(), num_inference_steps=STEPS, cache=world.cache, **FEW | asked)


def test_a_lora_and_its_scale(world, tmp_path):
    """As diffusers' own pipeline takes it, where it takes any."""
    if not hasattr(world.plain, "load_lora_weights"):
        save_file({"a.lora_A.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
        with pytest.raises(InputError, match="--lora: found a LoRA for a .*, for which diffusers has no loader"):
            lora.load(world.pipe, [str(tmp_path / "lora.safetensors")])
        return
    taught, config = (
        copy.deepcopy(world.plain),
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_k"], init_lora_weights=False),
    )
    torch.manual_seed(0)
    taught.transformer.add_adapter(config)
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(taught.transformer))
    type(taught).save_lora_weights(tmp_path, transformer_lora_layers=state)
    wrapped, free = world.toy.wrap(copy.deepcopy(world.plain)), sdedit(world.pipe, latents=world.toy.noise())
    file = str(next(tmp_path.glob("*.safetensors")))
    assert lora.load(wrapped, [file]) == []
    scaled = {world.pipe.kwargs_argument: {"scale": 0.5}}
    half = sdedit(wrapped, latents=world.toy.noise(), **scaled)
    close(half, world.toy.sampled(taught, start(world), STEPS, 4.0, **scaled))
    assert (half - free).abs().max() > 1e-3


def test_turbo_runs_what_inverts_nothing(tmp_path):
    """Distilled to few steps: told by the scheduler's shift, or by the index; one row a step by default."""
    toy, plain = TOYS["z-image"], z_image_pipeline(tmp_path, shift=3.0)
    pipe = toy.wrap(plain)
    made = pipe("a cat", picture(), num_inference_steps=STEPS, method=methods.get("sdedit"), strength=1.0)
    assert made.cost["row_forwards"] == STEPS
    refused = "found {} on a z-image model distilled to a few steps.*; allowed: sdedit, flowedit, or the model"
    for name in ("freecontrol", "ddpm-inversion"):
        with pytest.raises(InputError, match="method: " + refused.format(name)):
            pipe("a cat", picture(), method=methods.get(name))
    plain.save_pretrained(tmp_path / "turbo")
    for weights in tmp_path.rglob("*.safetensors"):
        save_file({"nothing": torch.zeros(1)}, weights)
    source = resolve_model(str(tmp_path / "turbo"))
    check_method(source, methods.get("flowedit"))
    with pytest.raises(InputError, match="--method: " + refused.format("freecontrol")):
        check_method(source, methods.get("freecontrol"))
    index = json.loads((tmp_path / "turbo" / "model_index.json").read_text()) | {"step_distilled": False}
    (tmp_path / "turbo" / "model_index.json").write_text(json.dumps(index))
    check_method(source, methods.get("freecontrol"))
