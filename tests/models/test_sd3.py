"""Stable Diffusion 3 and 3.5 against diffusers' own pipelines, on tiny random models of their topology."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
)
from flow_toy import sd3_pipeline, sd3_transformer
from PIL import Image
from safetensors.torch import save_file

import freectl
from freectl import methods
from freectl.errors import InputError
from freectl.models import families
from freectl.models.engine import Engine
from freectl.pipelines.loading import load_pipeline, resolve_model

SIZE = (96, 64)
STEPS = 4
KINDS = {"medium": {"qk_norm": None, "dual": 0}, "3.5-medium": {}, "3.5-large": {"dual": 0}}
SHARED = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "negative_prompt": "grey"}


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def noise(seed: int = 7) -> torch.Tensor:
    return torch.randn(1, 4, SIZE[1] // 4, SIZE[0] // 4, generator=torch.Generator().manual_seed(seed))


def wrap(plain: Any) -> Any:
    pipe = freectl.FreeControl3Pipeline.from_pipe(plain)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module", params=KINDS)
def plain(request, tmp_path_factory) -> StableDiffusion3Pipeline:
    return sd3_pipeline(tmp_path_factory.mktemp("sd3"), **KINDS[request.param])


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> StableDiffusion3Pipeline:
    return sd3_pipeline(tmp_path_factory.mktemp("sd35"))


@pytest.fixture(scope="module")
def pipe(toy) -> Any:
    return wrap(toy)


def sdedit(pipe: Any, prompt: Any = "a cat", image: Any = None, strength: float = 1.0, **options: Any) -> Any:
    given = SHARED | {"output_type": "latent", "method": methods.get("sdedit"), "strength": strength} | options
    return pipe(prompt, image or picture(), **given).images


# What it is


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192}, 2_028_328_000),
        (
            {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
             "dual_attention_layers": tuple(range(13))},
            2_243_171_520,
        ),
        (
            {"num_layers": 38, "num_attention_heads": 38, "pos_embed_max_size": 192, "qk_norm": "rms_norm"},
            8_056_627_520,
        ),
    ],
    ids=KINDS,
)  # fmt: skip
def test_published_transformers_are_recognised(config, parameters):
    width = 64 * config["num_attention_heads"]
    with torch.device("meta"):
        network = SD3Transformer2DModel(
            sample_size=128, patch_size=2, in_channels=16, out_channels=16, attention_head_dim=64,
            joint_attention_dim=4096, caption_projection_dim=width, pooled_projection_dim=2048, **config,
        )  # fmt: skip
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    family = families.of(network)
    assert (family.name, family.latent_shape(network)) == ("sd3", (16, 128, 128))


def test_other_transformers_are_refused_in_one_line():
    inpainting = SD3Transformer2DModel(**dict(sd3_transformer().config) | {"in_channels": 9})
    with pytest.raises(InputError, match="found a SD3Transformer2DModel with 8 blocks, 9 channels in and 4 out"):
        families.of(inpainting)
    with pytest.raises(InputError, match="--model: found a Linear; allowed: one of UNet2DConditionModel, SD3"):
        families.of(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="--model: found a object; allowed: a pipeline with one of"):
        families.network_of(object())


# What a call gives


def test_text_to_image_is_diffusers_own(plain):
    """At strength 1 a flow's start is the noise itself, whatever the picture."""
    expected = plain("a cat", width=SIZE[0], height=SIZE[1], output_type="np", latents=noise(), **SHARED).images
    got = sdedit(wrap(plain), latents=noise(), output_type="np")
    assert got.shape == (1, SIZE[1], SIZE[0], 3)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_image_to_image_is_diffusers_own(plain):
    """To the bit at equal noise. Sampled from the picture's mode, as here; diffusers draws from the posterior."""
    wrapped = wrap(plain)
    theirs = StableDiffusion3Img2ImgPipeline.from_pipe(plain)
    theirs.set_progress_bar_config(disable=True)
    clean = Engine(wrapped).encode_images([picture()])
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    expected = theirs(
        "a cat", image=clean, strength=0.5, width=SIZE[0], height=SIZE[1], output_type="latent",
        generator=torch.Generator().manual_seed(3), **SHARED,
    ).images  # fmt: skip
    assert torch.equal(sdedit(wrapped, strength=0.5, latents=drawn), expected)


def test_a_shift_by_size_is_diffusers_own(toy):
    """Dynamic shifting: the grid depends on the number of tokens."""
    moved = StableDiffusion3Pipeline(**toy.components | {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=16)
    })  # fmt: skip
    moved.set_progress_bar_config(disable=True)
    expected = moved("a cat", width=96, height=64, output_type="latent", latents=noise(), **SHARED).images
    got = sdedit(wrap(moved), latents=noise())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (got - sdedit(wrap(toy), latents=noise())).abs().max() > 1e-3


def test_encoding_and_decoding_use_the_vaes_shift(plain):
    engine = Engine(wrap(plain))
    pixels = engine.pipe.image_processor.preprocess([picture()])
    raw = plain.vae.encode(pixels).latent_dist.mode()
    got = engine.encode_images([picture()])
    torch.testing.assert_close(got, (raw - 0.0609) * 1.5305, rtol=0, atol=1e-5)
    torch.testing.assert_close(engine.decode(got), plain.vae.decode(raw).sample, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["sdedit", "flowedit", "ddpm-inversion"])
def test_a_batch_is_its_pictures_one_by_one(pipe, method):
    prompts, pictures = ["a cat", "red dog"], [picture(0), picture(1)]
    given = {"source_prompt": "a dog", "output_type": "latent", "method": methods.get(method)} | SHARED

    def run(which: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(i) for i in which]
        return pipe([prompts[i] for i in which], [pictures[i] for i in which], generator=generators, **given).images

    both = run([0, 1])
    assert both.shape == (2, 4, 16, 24)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], run([i]), rtol=0, atol=2e-5)


def test_flowedit_is_the_published_loop(pipe):
    """Algorithm 1 of arXiv 2412.08629, written out: two velocities at the same noise, no noise in the state."""
    engine = Engine(pipe)
    engine.size = SIZE
    clean, lower = engine.encode_images([picture()]), 1
    prompts = [engine.encode_prompt([text], ["grey"]) for text in ("a cat", "a dog")]
    grid = [time / 1000 for time in engine.path(STEPS).times] + [0.0]
    drawn, z = torch.Generator().manual_seed(5), clean.clone()

    def velocity(x: torch.Tensor, s: float, which: int, scale: float) -> torch.Tensor:
        prompt = prompts[which]
        with torch.no_grad():
            halves = [
                engine.denoiser.forward(x, 1000 * s, prompt.half(half), dict(prompt.added[half]))
                for half in ("uncond", "cond")
            ]
        return halves[0] + scale * (halves[1] - halves[0])

    for i in range(1, STEPS):
        s, below = grid[i], grid[i + 1]
        if i <= STEPS - lower:
            noised = (1 - s) * clean + s * torch.randn(clean.shape, generator=drawn)
        if i < STEPS - lower:
            z = z + (below - s) * (velocity(z + noised - clean, s, 0, 4.0) - velocity(noised, s, 1, 3.5))
        else:
            z = z + noised - clean if i == STEPS - lower else z
            z = z + (below - s) * velocity(z, s, 0, 4.0)
    got = pipe(
        "a cat", picture(), method=methods.get("flowedit"), strength=0.75, plain=0.25, source_prompt="a dog",
        generator=torch.Generator().manual_seed(5), output_type="latent", **SHARED,
    ).images  # fmt: skip
    torch.testing.assert_close(got, z, rtol=0, atol=2e-5)


def test_bf16_is_diffusers_own(toy):
    narrow = copy.deepcopy(toy).to(torch.bfloat16)
    expected = narrow("a cat", width=96, height=64, output_type="latent", latents=noise().bfloat16(), **SHARED).images
    got = sdedit(wrap(narrow), latents=noise())
    assert got.dtype == torch.bfloat16
    assert (got - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("at", ["lower", "upper"])
def test_inversion_error_shrinks_with_steps(pipe, at):
    """Sampling without guidance from the inverted latents comes back to the picture, nearer with more steps."""
    engine = Engine(pipe)
    engine.size = SIZE
    clean, prompt, errors = engine.encode_images([picture()]), engine.encode_prompt(["a dog"]), []
    for steps in (4, 16):
        path = engine.path(steps)
        latents = engine.invert(picture(), "a dog", path, evaluate_at=at)[0].start
        with torch.no_grad():
            for time in path.times:
                output = engine.denoiser.forward(latents, time, prompt.cond, dict(prompt.added["cond"]))
                latents = path.step(output, latents, time)
        errors.append(float((latents - clean).square().mean().sqrt() / clean.std()))
    assert errors[0] > 2 * errors[1]


def test_an_exception_leaves_hooks_and_processors_as_they_were(pipe):
    before = dict(pipe.transformer.attn_processors)

    def fail(_pipe, index, _timestep, _tensors):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        sdedit(pipe, callback_on_step_end=fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.transformer.modules())
    assert pipe.transformer.attn_processors == before


# The contract of a pipeline


def test_it_saves_and_opens_by_either_class_and_by_model(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert type(StableDiffusion3Pipeline.from_pretrained(tmp_path)) is StableDiffusion3Pipeline
    opened = load_pipeline(resolve_model(str(tmp_path)), device="cpu", dtype=torch.float32)
    assert type(opened) is freectl.FreeControl3Pipeline
    opened.set_progress_bar_config(disable=True)
    torch.testing.assert_close(sdedit(opened, latents=noise()), sdedit(pipe, latents=noise()), rtol=0, atol=1e-5)


def test_two_encoders_are_enough(tmp_path):
    """Diffusers saves a missing third encoder so that only a class to which it is optional opens the folder."""
    short = freectl.FreeControl3Pipeline(**sd3_pipeline(tmp_path, third=False).components, max_sequence_length=0)
    short.set_progress_bar_config(disable=True)
    assert Engine(short).encode_prompt(["a cat"]).cond.shape[1] == 77
    short.save_pretrained(tmp_path / "saved")
    opened = load_pipeline(resolve_model(str(tmp_path / "saved")), device="cpu", dtype=torch.float32)
    assert Engine(opened).encode_prompt(["a cat"]).cond.shape[1] == 77
    opened.set_progress_bar_config(disable=True)
    expected = StableDiffusion3Pipeline(**short.components)(
        "a cat", width=96, height=64, output_type="latent", latents=noise(), max_sequence_length=0, **SHARED
    ).images
    torch.testing.assert_close(sdedit(opened, latents=noise()), expected, rtol=0, atol=1e-5)


def test_callbacks_see_and_change_what_they_name(pipe):
    names = ["latents", "prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    seen = []

    def watch(_pipe, index, _timestep, tensors):
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return {"latents": tensors["latents"] * 0}

    sdedit(pipe, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=names)
    assert len(seen) == STEPS
    assert seen[0]["latents"] == (1, 4, 16, 24)
    assert seen[0]["negative_pooled_prompt_embeds"] == (1, 32)
    assert seen[0]["pooled_prompt_embeds"] == (2, 32)  # both halves, as in diffusers

    def stop(_pipe, index, _timestep, _tensors):
        _pipe._interrupt = True

    assert (sdedit(pipe, callback_on_step_end=stop) - sdedit(pipe)).abs().max() > 1e-3


def test_embeddings_stand_for_texts(pipe):
    engine = Engine(pipe)
    engine.size = SIZE
    prompt = engine.encode_prompt(["a cat"], ["grey"])
    given = {
        "prompt_embeds": prompt.cond,
        "negative_prompt_embeds": prompt.uncond,
        "pooled_prompt_embeds": prompt.added["cond"]["pooled_projections"],
        "negative_pooled_prompt_embeds": prompt.added["uncond"]["pooled_projections"],
        "negative_prompt": None,
        "latents": noise(),
    }
    torch.testing.assert_close(sdedit(pipe, None, **given), sdedit(pipe, latents=noise()))
    with pytest.raises(InputError, match="pooled_prompt_embeds: found None"):
        sdedit(pipe, None, **given | {"pooled_prompt_embeds": None})


def test_a_lora_and_its_scale(toy, tmp_path):
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    taught = copy.deepcopy(toy)
    taught.transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_k"], init_lora_weights=False))
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(taught.transformer))
    StableDiffusion3Pipeline.save_lora_weights(tmp_path, transformer_lora_layers=state)
    wrapped, free = wrap(copy.deepcopy(toy)), sdedit(wrap(toy), latents=noise())
    wrapped.load_lora_weights(tmp_path)
    half = sdedit(wrapped, latents=noise(), joint_attention_kwargs={"scale": 0.5})
    expected = taught("a cat", width=96, height=64, output_type="latent", latents=noise(),
                      joint_attention_kwargs={"scale": 0.5}, **SHARED).images  # fmt: skip
    torch.testing.assert_close(half, expected, rtol=0, atol=1e-5)
    assert (sdedit(wrapped, latents=noise(), joint_attention_kwargs={"scale": 0.0}) - free).abs().max() < 1e-5
    assert (half - free).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 100}, "width: found 100; allowed: a multiple of 8"),
        ({"width": 200}, "width: found 200 px; allowed: up to 192"),
        (
            {"method": methods.get("pix2pix-zero"), "strength": None},
            "method: found pix2pix-zero, which does not run on sd3 models",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(pipe, options, match):
    given = SHARED | {"strength": 0.5, "method": methods.get("sdedit")} | options
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(InputError, match=match):
        pipe("a cat", picture(), **given)


def test_the_mean_of_the_paths_ends(pipe):
    """The first level of a flow is noise alone and a step from it has a finite length."""
    path = Engine(pipe).path(STEPS)
    assert path.times[0] == 1000
    assert math.isfinite(float(path.guidance_length(path.times[0])))


def test_a_method_it_does_not_run_is_refused_before_weights_are_read(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        save_file({"nothing": torch.zeros(1)}, weights)
    with pytest.raises(
        InputError, match="method: found pix2pix-zero, which does not run on sd3 models; allowed: .*sdedit"
    ):
        freectl.edit(picture(), "a cat", method="pix2pix-zero", model=str(tmp_path))
    with pytest.raises(freectl.FreectlError, match="lacks"):
        freectl.edit(picture(), "a cat", method="sdedit", model=str(tmp_path))


def test_an_edit_by_model_folder(pipe, tmp_path):
    """The command's own way: fitted to sizes of whole tokens, and restored to the picture's."""
    pipe.save_pretrained(tmp_path)
    done = freectl.edit(picture(size=(70, 50)), "a cat", method="sdedit", model=str(tmp_path), steps=4, cache=False)
    assert done.image.size == (70, 50)
    assert done.cost["row_forwards"] == 2 * 3
