"""`FreeControlPipeline` as a diffusers pipeline: what goes in and out, and that it leaves the model as it was."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn
from toy import LATENT, toy_inputs, toy_unet

from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.models.engine import Engine
from freectl.models.fingerprint import fingerprint
from freectl.pipelines.sd import FreeControlPipeline, FreeControlPipelineOutput, ddim

STEPS = 5
FEW = {"seeds": 4, "seed_steps": 10, "components": 4, "concept": "cat", "structure_strength": 0.5}
FEW |= {"appearance_weight": 0.5}


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def wrap(pipe: StableDiffusionPipeline) -> FreeControlPipeline:
    made = FreeControlPipeline.from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pipe(toy_pipe) -> FreeControlPipeline:
    return wrap(toy_pipe)


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache()  # the session's own, so that bases are built once


@pytest.fixture
def run(pipe, cache):
    """Call the pipeline with small settings; `on` is another pipeline."""

    def call(prompt: Any = "a cat", image: Any = None, *, on: FreeControlPipeline = pipe, **options: Any):
        options = {"num_inference_steps": STEPS, "cache": cache, "output_type": "latent"} | FEW | options
        return on(prompt, picture() if image is None else image, **options)

    return call


@pytest.fixture(scope="module")
def plain(pipe, cache) -> Tensor:
    """Latents of the plainest call."""
    return pipe("a cat", picture(), num_inference_steps=STEPS, cache=cache, output_type="latent", **FEW).images


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# Loading and saving


@pytest.mark.parametrize("own", [True, False])
def test_save_and_load_round_trip(toy_pipe, pipe, run, plain, tmp_path, own):
    """Its own folders and plain Stable Diffusion's load alike; weights are then read where the file has them."""
    (pipe if own else toy_pipe).save_pretrained(tmp_path)
    first, second = (FreeControlPipeline.from_pretrained(tmp_path) for _ in range(2))
    for again in (first, second):
        assert type(again) is FreeControlPipeline
        again.set_progress_bar_config(disable=True)
    unguided = {"structure_strength": 0.0}
    assert torch.equal(run(on=first, **unguided).images, run(**unguided).images)
    got = run(on=first)
    assert torch.equal(run(on=second).images, got.images)
    close(got.images, plain)  # a file's weights are not aligned: backward kernels round otherwise
    assert got.cost["cached"] == {"bases": True, "inversion": True, "reference": True}
    assert StableDiffusionPipeline.from_pretrained(tmp_path).unet.config.sample_size == LATENT


def test_from_pipe_shares_the_networks_and_goes_back(toy_pipe, pipe):
    assert pipe.unet is toy_pipe.unet
    back = StableDiffusionPipeline.from_pipe(pipe)
    assert type(back) is StableDiffusionPipeline
    assert back.unet is toy_pipe.unet


def test_other_schedulers_become_ddim_on_the_same_schedule(toy_pipe, run, plain):
    config = toy_pipe.scheduler.config
    names = ("beta_start", "beta_end", "beta_schedule", "steps_offset", "set_alpha_to_one", "prediction_type")
    pndm = PNDMScheduler(**{name: config[name] for name in names})
    made = ddim(pndm)
    assert isinstance(made, DDIMScheduler)
    assert torch.equal(made.alphas_cumprod, toy_pipe.scheduler.alphas_cumprod)
    assert {name: made.config[name] for name in (*names, "clip_sample")} == {
        name: config[name] for name in (*names, "clip_sample")
    }
    parts = {**toy_pipe.components, "scheduler": pndm}
    other = FreeControlPipeline(**parts, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    assert torch.equal(run(on=other).images, plain)
    assert ddim(toy_pipe.scheduler) is toy_pipe.scheduler


def test_v_prediction_survives_the_conversion():
    made = ddim(PNDMScheduler(prediction_type="v_prediction", steps_offset=1))
    assert (made.config.prediction_type, made.config.steps_offset) == ("v_prediction", 1)


def test_v_prediction_runs(toy_pipe_v, run):
    pipe_v = wrap(toy_pipe_v)
    guided = run(on=pipe_v)
    assert torch.isfinite(guided.images).all()
    assert len(guided.trace) == 3
    free = run(on=pipe_v, structure_strength=0.0, guidance_scale=4.0)
    engine = Engine(pipe_v)
    start = engine.invert(picture(), "", engine.path(STEPS))[0].start
    options = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "latents": start, "output_type": "latent"}
    assert torch.equal(free.images, toy_pipe_v("a cat", **options).images)
    assert not torch.equal(free.images, guided.images)


# What comes out


def test_output_types_agree(run, plain):
    pil, array, tensor = (run(output_type=kind).images for kind in ("pil", "np", "pt"))
    assert isinstance(pil, list)
    assert (pil[0].mode, pil[0].size) == ("RGB", (32, 32))
    assert array.shape == (1, 32, 32, 3)
    assert tensor.shape == (1, 3, 32, 32)
    assert 0 <= array.min() < array.max() <= 1
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    np.testing.assert_array_equal(np.asarray(pil[0]), (array[0] * 255).round().astype(np.uint8))
    assert plain.shape == (1, 4, LATENT, LATENT)


def test_decoding_is_the_vaes_own(pipe, run, plain):
    with torch.no_grad():
        pixels = pipe.vae.decode(plain / pipe.vae.config.scaling_factor).sample
    np.testing.assert_allclose(run(output_type="pt").images, (pixels / 2 + 0.5).clamp(0, 1), atol=1e-6)


def test_return_dict(run, plain):
    out = run()
    assert isinstance(out, FreeControlPipelineOutput)
    assert out["images"] is out.images is out[0]
    assert {"row_forwards", "row_backwards", "seconds", "peak_memory_mb", "cached"} <= out.cost.keys()
    images, flagged = run(return_dict=False)
    assert torch.equal(images, plain)
    assert flagged is None


def test_two_runs_are_equal(run, plain):
    assert torch.equal(run().images, plain)


def test_list_of_prompts_equals_single_calls(run, plain):
    both = run(["a cat", "a red dog"]).images
    assert both.shape[0] == 2
    close(both[:1], plain)
    close(both[1:], run("a red dog").images)
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_list_of_images_equals_single_calls(run, plain):
    both = run(["a cat", "a cat"], [picture(), picture(1)]).images
    close(both[:1], plain)
    close(both[1:], run(image=picture(1)).images)
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_num_images_per_prompt(run, plain):
    three = run(num_images_per_prompt=3).images
    close(three, plain.expand(3, -1, -1, -1))  # from the same inverted latent: equal
    four = run(["a cat", "a dog"], [picture(), picture(1)], num_images_per_prompt=2).images
    pair = run(["a cat", "a dog"], [picture(), picture(1)]).images
    close(four, pair.repeat_interleave(2, 0))


def test_generators_are_one_a_picture(run):
    two = {"num_images_per_prompt": 2}
    noise = {"start": "noise", "appearance_weight": 0.0, "num_inference_steps": 2}
    both = run(generator=seeded(1, 2), **noise, **two).images
    close(both[1:], run(generator=seeded(2), **noise).images)
    close(both[:1], run(generator=seeded(1)[0], **noise).images)
    one = [run(generator=seeded(5)[0], **noise, **two).images for _ in range(2)]
    assert torch.equal(*one)
    assert (one[0][0] - one[0][1]).abs().max() > 1e-2  # pictures of one generator differ
    stochastic = run(generator=seeded(1, 2), eta=1.0, **two).images
    close(stochastic[1:], run(generator=seeded(2), eta=1.0).images)
    with pytest.raises(InputError, match="generator: found 1"):
        run(generator=seeded(1), **two)


def test_given_latents_are_the_start(pipe, run, plain):
    engine = Engine(pipe)
    start = engine.invert(picture(), "", engine.path(STEPS))[0].start
    assert torch.equal(run(latents=start).images, plain)
    assert not torch.equal(run(latents=start + 0.1).images, plain)


def test_prompt_embeds_replace_the_prompt(pipe, run, plain):
    cond, uncond = pipe.encode_prompt("a cat", "cpu", 1, True)
    assert torch.equal(run(None, prompt_embeds=cond, negative_prompt_embeds=uncond).images, plain)


def test_negative_prompt_changes_the_result_and_pairs_up(run, plain):
    blurry = run(negative_prompt="blurry").images
    assert (blurry - plain).abs().max() > 1e-3
    both = run(["a cat", "a cat"], negative_prompt=["blurry", ""]).images
    close(both[:1], blurry)
    close(both[1:], plain)


@pytest.mark.parametrize(("size", "masked"), [((48, 32), False), ((24, 40), True), ((56, 72), True)])
def test_sizes_divisible_by_8(run, size, masked):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    out = run(image=picture(2, size), output_type="pil", mask=mask if masked else None)
    assert out.images[0].size == size
    assert len(out.trace) == 3


def test_odd_sizes_are_fitted_and_given_ones_win(run):
    quick = {"output_type": "pil", "num_inference_steps": 2, "structure_strength": 0.0}
    assert run(image=picture(0, (37, 45)), **quick).images[0].size == (40, 48)
    assert run(width=48, height=40, **quick).images[0].size == (48, 40)
    with pytest.raises(InputError, match="width: found 30"):
        run(width=30)


def test_modes_other_than_rgb_are_converted(run):
    grey = picture().convert("L")
    assert torch.equal(run(image=grey).images, run(image=grey.convert("RGB")).images)


def test_mask_of_everything_is_no_mask(run, plain):
    close(run(mask=Image.new("L", (32, 32), 255)).images, plain)
    half = Image.new("L", (32, 32), 0)
    half.paste(255, (0, 0, 16, 32))
    assert (run(mask=half).images - plain).abs().max() > 1e-3


# What is refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt": " "}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt_embeds"),
        ({"prompt": ["a cat", ""]}, "prompt"),
        ({"image": [picture()] * 3, "prompt": ["a", "b"]}, "image: found 3 pictures for 2"),
        ({"output_type": "jpg"}, "output_type.*pil, np, pt, latent"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"num_inference_steps": 0}, "steps"),
        ({"num_inference_steps": 2000}, "steps"),
        ({"num_inference_steps": 1000}, "999"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt"),
        ({"callback_on_step_end_tensor_inputs": ["noise"], "callback_on_step_end": lambda *_: {}}, "noise.*latents"),
        ({"mask": Image.new("L", (32, 32), 0)}, "mask"),
    ],
)
def test_bad_arguments(run, options, match):
    with pytest.raises(InputError, match=match):
        run(**options)


def test_unknown_or_out_of_range_settings(run):
    with pytest.raises(ValueError, match="structure_wieght"):
        run(structure_wieght=1.0)
    with pytest.raises(ValueError, match="structure_strength"):
        run(structure_strength=-1.0)


def test_an_image_is_required(pipe):
    with pytest.raises(InputError, match="image"):
        pipe("a cat")


# Callbacks


def test_callback_sees_and_changes_latents(run, plain):
    seen: list[tuple[int, int]] = []

    def zero(pipe, index: int, timestep: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((index, timestep))
        assert set(tensors) == {"latents"}
        return {"latents": torch.zeros_like(tensors["latents"])} if index == STEPS - 1 else {}

    assert torch.equal(run(callback_on_step_end=zero).images, torch.zeros_like(plain))
    assert seen == list(enumerate([801, 601, 401, 201, 1]))


def test_callback_gets_the_allowed_tensors(pipe, run, plain):
    names = list(pipe._callback_tensor_inputs)
    shapes: list[dict[str, tuple]] = []

    def look(_pipe, _index, _timestep, tensors) -> dict:
        shapes.append({name: tuple(value.shape) for name, value in tensors.items()})
        return tensors

    got = run(callback_on_step_end=look, callback_on_step_end_tensor_inputs=names).images
    assert torch.equal(got, plain)
    assert set(shapes[0]) == set(names) >= {"latents", "prompt_embeds", "negative_prompt_embeds"}
    assert shapes[0]["latents"] == (1, 4, LATENT, LATENT)
    assert shapes[0]["negative_prompt_embeds"] == (1, 77, 16)
    assert shapes[0]["prompt_embeds"] == (2, 77, 16)  # both halves, as in diffusers


def test_callback_can_change_the_prompt(run, plain):
    def swap(_pipe, _index, _timestep, tensors) -> dict:
        return {"prompt_embeds": tensors["negative_prompt_embeds"]}

    names = ["prompt_embeds", "negative_prompt_embeds"]
    assert not torch.equal(run(callback_on_step_end=swap, callback_on_step_end_tensor_inputs=names).images, plain)


def test_interrupt_ends_the_loop(run):
    states: list[Tensor] = []

    def stop(pipe, index: int, _timestep, tensors) -> dict:
        states.append(tensors["latents"])
        pipe._interrupt = index == 1
        return {}

    out = run(callback_on_step_end=stop)
    assert len(states) == 2
    assert torch.equal(out.images, states[-1])
    states.clear()
    assert torch.isfinite(run(callback_on_step_end=lambda *_: states.append(1) or {}).images).all()
    assert len(states) == STEPS  # an interrupt does not outlive its call


# The model afterwards


def state_of(unet: nn.Module) -> tuple:
    hooks = [(m._forward_hooks.copy(), m._forward_pre_hooks.copy(), m._backward_hooks.copy()) for m in unet.modules()]
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    flags = [parameter.requires_grad for parameter in unet.parameters()]
    return hooks, processors, flags, "forward" in vars(unet), unet.training


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("failing", [False, True])
def test_unet_is_untouched_after_a_call(toy_pipe, run, failing, trainable):
    own = wrap(toy_pipe)
    unet = copy.deepcopy(toy_pipe.unet)
    own.register_modules(unet=unet)
    unet.conv_in.requires_grad_(trainable)
    inputs = toy_inputs(unet, tokens=7)
    with torch.no_grad():
        before = unet(**inputs).sample
    expected = state_of(unet)

    def fail(_pipe, index: int, _timestep, _tensors) -> dict:
        if failing and index == 1:  # inside the guidance window
            raise RuntimeError("from the callback")
        return {}

    if failing:
        with pytest.raises(RuntimeError, match="from the callback"):
            run(on=own, callback_on_step_end=fail)
    else:
        run(on=own, callback_on_step_end=fail)
    assert state_of(unet) == expected
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert torch.equal(unet(**inputs).sample, before)


def test_a_failed_run_does_not_change_the_next(run, plain):
    def fail(*_args) -> dict:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(callback_on_step_end=fail, source_prompt="a fox")
    assert torch.equal(run().images, plain)


# The cache


def test_cache_hit_equals_miss_equals_no_cache(run, cache, tmp_path):
    fresh = Cache(tmp_path)
    miss, hit = run(cache=fresh), run(cache=fresh)
    assert miss.cost["cached"] == {"bases": False, "inversion": False, "reference": False}
    assert hit.cost["cached"] == {"bases": True, "inversion": True, "reference": True}
    assert torch.equal(miss.images, hit.images)
    assert torch.equal(run(cache=None).images, hit.images)


def test_a_repeat_does_not_invert_again(run):
    first = run(source_prompt="a grey fox").cost
    again = run(source_prompt="a grey fox").cost
    assert again["row_forwards"] == 2 * STEPS  # the sibling is not run again either
    assert first["row_forwards"] > again["row_forwards"] + STEPS
    assert again["row_backwards"] == first["row_backwards"] == 3


@pytest.mark.parametrize(
    "change", [{"source_prompt": "a dog"}, {"image": picture(18)}, {"num_inference_steps": 10}, {"width": 40}]
)
def test_what_an_inversion_depends_on_is_in_its_key(run, change):
    own = {"image": picture(17)}  # which no other test of the session has inverted
    run(**own)
    assert not run(**own | change).cost["cached"]["inversion"]
    assert run(**own | change).cost["cached"]["inversion"]


@pytest.mark.parametrize("change", [{"prompt": "a tall cat"}, {"structure_strength": 0.3}, {"guidance_scale": 2.0}])
def test_what_an_inversion_does_not_depend_on_is_not(run, change, plain):
    assert run(**change).cost["cached"] == {"bases": True, "inversion": True, "reference": True}


def test_other_weights_are_another_inversion(toy_pipe, run, plain):
    own = wrap(toy_pipe)
    own.register_modules(unet=copy.deepcopy(toy_pipe.unet))
    assert torch.equal(run(on=own).images, plain)
    own.unet.conv_out.weight.data += 0.01  # as a merged LoRA does; autograd's version counter does not see it
    changed = run(on=own)
    assert not changed.cost["cached"]["inversion"]
    assert not torch.equal(changed.images, plain)


# Fingerprints


def test_fingerprint_depends_on_the_weights_alone(unet):
    first = fingerprint(unet)
    assert fingerprint(unet) == fingerprint(copy.deepcopy(unet)) == fingerprint(toy_unet()) == first
    assert fingerprint(toy_unet(seed=1)) != first


@pytest.mark.parametrize("how", ["in place", "data", "replaced", "rounded"])
def test_fingerprint_sees_every_way_to_change_a_weight(unet, how):
    first, weight = fingerprint(unet), unet.conv_in.weight
    if how == "in place":
        with torch.no_grad():
            weight.add_(1)
    elif how == "data":
        weight.data += 1
    elif how == "replaced":
        unet.conv_in.weight = nn.Parameter(weight.detach() + 1)
    else:
        unet.half().float()
    assert fingerprint(unet) != first


def test_fingerprint_of_an_offloaded_network(unet):
    """Sequential offload keeps the weights outside the modules, which hold empty tensors."""
    first = fingerprint(unet)
    cpu_offload(unet, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).device.type == "meta"
    assert fingerprint(unet) == first


def test_sequential_offload_gives_the_same_picture(toy_pipe, run, plain):
    own = wrap(toy_pipe)
    own.register_modules(unet=copy.deepcopy(toy_pipe.unet))
    cpu_offload(own.unet, execution_device=torch.device("cpu"))
    assert torch.equal(run(on=own).images, plain)
