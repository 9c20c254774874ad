"""Stable Diffusion 1, 2 and XL: published layer names, and calls on pipelines of each family's topology."""

import contextlib
import copy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from toy import toy_inputs, true_unet_config

import freectl
from freectl.cli import main
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.files.record import read_record
from freectl.models import families
from freectl.models.engine import Engine

NAMES = ("sd1", "sd2", "sdxl")
FEW = {"seeds": 2, "seed_steps": 6, "components": 3, "concept": "cat", "structure_strength": 0.5}
FEW |= {"appearance_weight": 0.5}
FREE = {"structure_strength": 0.0}
SIZE = (96, 64)
STEPS = 3


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def wrap(toy: Any) -> Any:
    xl = hasattr(toy, "text_encoder_2")
    made = (freectl.FreeControlXLPipeline if xl else freectl.FreeControlPipeline).from_pipe(toy)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pipes(true_pipes) -> dict[str, Any]:
    return {name: wrap(toy) for name, toy in true_pipes.items()}


@pytest.fixture(scope="module")
def run(pipes):
    cache = Cache()

    def call(on: Any, prompt: Any = "a cat", image: Any = None, **options: Any):
        pipe = pipes[on] if isinstance(on, str) else on
        given = {"num_inference_steps": STEPS, "cache": cache, "output_type": "latent", "guidance_scale": 5.0}
        return pipe(prompt, image or picture(), **given | FEW | options)

    return call


def noise(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, SIZE[1] // 8, SIZE[0] // 8, generator=torch.Generator().manual_seed(7))


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# Which layers


@pytest.mark.parametrize(
    ("name", "family", "block", "blocks_each", "parameters"),
    [
        ("sd1", families.SD, "up_blocks.1", 1, 859_520_964),
        ("sd2", families.SD, "up_blocks.1", 1, 865_910_724),
        ("sdxl", families.SDXL, "up_blocks.0", 10, 2_567_463_684),
    ],
)
def test_published_unets_have_exactly_these_sites(name, family, block, blocks_each, parameters):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_unet_config(name, full=True))
    assert sum(weight.numel() for weight in unet.parameters()) == parameters
    assert families.of(unet) is family
    expected = sites(block, blocks_each)
    assert family.structure_sites(unet) == expected
    assert family.structure_sites(unet, "first") == expected[:1]
    toy = UNet2DConditionModel(**true_unet_config(name))
    assert families.of(toy) is family
    assert family.structure_sites(toy) == sites(block, min(blocks_each, 3))


def sites(block: str, blocks_each: int) -> list[str]:
    return [
        f"{block}.attentions.{attention}.transformer_blocks.{layer}.attn1.to_k"
        for attention in range(3)
        for layer in range(blocks_each)
    ]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"in_channels": 9}, "9 channels in and 4 out"),  # inpainting
        ({"addition_embed_type": "text", "addition_embed_type_num_heads": 2, "encoder_hid_dim": 16}, "text inputs"),
        (
            {"up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")},
            "self-attention in .*up_blocks.2, up_blocks.3",
        ),
    ],
)
def test_an_unknown_unet_is_told_what_was_looked_for(change, found):
    unet = UNet2DConditionModel(**true_unet_config("sd1") | change)
    with pytest.raises(InputError, match=f"--model: found a UNet with 4 levels, .*{found}") as caught:
        families.of(unet)
    for name in ("sd (4 levels", "sdxl (3 levels, text_time inputs", "self-attention in up_blocks.0", "mini"):
        assert name in str(caught.value)


# What a call gives


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_it_is_diffusers_own_pipeline(true_pipes, run, name):
    """Ours with nothing to guide it, from given noise and not square, against the class of diffusers."""
    shared = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "latents": noise(), "negative_prompt": "grey"}
    expected = true_pipes[name]("a cat", width=SIZE[0], height=SIZE[1], output_type="np", **shared).images
    got = run(name, output_type="np", **FREE, **shared).images
    assert got.shape == (1, SIZE[1], SIZE[0], 3)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_batch_is_its_pictures_one_by_one(run, name):
    """Two prompts, pictures and negative prompts; latents of 9 by 13 halve with a remainder at every level."""
    size = (104, 72)
    prompts, pictures, negative = ["a cat", "a red dog"], [picture(0, size), picture(1, size)], ["", "grey"]
    both = run(name, prompts, pictures, negative_prompt=negative)
    assert both.images.shape == (2, 4, 9, 13)
    assert len(both.trace) == 2
    assert all(entry["structure"] > 0 for entry in both.trace)
    for i in range(2):
        close(both.images[i : i + 1], run(name, prompts[i], pictures[i], negative_prompt=negative[i]).images)
    free = run(name, prompts[0], pictures[0], negative_prompt="", **FREE).images
    assert (both.images[:1] - free).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [("sd1", torch.bfloat16, 0.3), ("sdxl", torch.float16, 0.1)],
)
def test_half_precision_stays_near_single(true_pipes, run, name, dtype, tolerance):
    """Random networks amplify rounding; bf16 has three bits fewer than fp16."""
    narrow = wrap(type(true_pipes[name])(**copy.deepcopy(parts_of(true_pipes[name])), **no_checker(name)).to(dtype))
    out = run(narrow, num_inference_steps=2)
    assert out.images.dtype == dtype
    assert out.warnings == []
    assert all(np.isfinite(list(entry.values())).all() for entry in out.trace)
    expected = run(name, num_inference_steps=2).images
    assert (out.images.float() - expected).norm() < tolerance * expected.norm()


def parts_of(pipe: Any) -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if part is not None}


def no_checker(name: str) -> dict[str, Any]:
    plain = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {"add_watermarker": False} if name == "sdxl" else plain


# The model afterwards


def test_users_lora_and_gradient_flags_are_left_alone(true_pipes, run):
    """A trainable LoRA on the UNet: followed, and as it was after a call and after one that failed."""
    name = "sdxl"
    pipe = wrap(true_pipes[name])
    unet = copy.deepcopy(pipe.unet)
    pipe.register_modules(unet=unet)
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    seen: list[int] = []
    unet.conv_in.register_forward_hook(lambda *_: seen.append(1))
    inputs = toy_inputs(unet)
    with torch.no_grad():
        before = unet(**inputs).sample
    state = state_of(unet)
    free = {"num_inference_steps": 2, "appearance_weight": 0.0}
    changed = run(pipe, **free).images
    assert (changed - run(name, **free).images).abs().max() > 1e-3
    assert state_of(unet) == state

    def fail(*_args: Any) -> dict:
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        run(pipe, callback_on_step_end=fail, **free)
    assert state_of(unet) == state
    assert all(weight.grad is None for weight in unet.parameters())
    seen.clear()
    with torch.no_grad():
        assert torch.equal(unet(**inputs).sample, before)
    assert seen == [1]


def state_of(unet: Any) -> tuple:
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks)) for m in unet.modules()]
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    return hooks, processors, [weight.requires_grad for weight in unet.parameters()], unet.training


def test_offload_gives_the_same_picture(true_pipes, run):
    name = "sdxl"
    pipe = wrap(type(true_pipes[name])(**copy.deepcopy(parts_of(true_pipes[name])), **no_checker(name)))
    pipe.enable_model_cpu_offload(device="cpu")
    quick = {"num_inference_steps": 2, "output_type": "np"}
    first = run(pipe, **quick).images
    np.testing.assert_allclose(first, run(name, **quick).images, atol=1e-5)
    assert hasattr(pipe.unet, "_hf_hook")  # still offloaded, for the next call
    np.testing.assert_array_equal(run(pipe, **quick).images, first)


def test_from_pipe_keeps_the_dtype_of_each_network(true_pipes):
    """Diffusers' own makes shared networks fp32."""
    pipe = type(true_pipes["sd1"])(**copy.deepcopy(parts_of(true_pipes["sd1"])), **no_checker("sd1"))
    for unet, vae in ((torch.float16, torch.float16), (torch.bfloat16, torch.float32)):
        pipe.unet.to(unet)
        pipe.vae.to(vae)
        made = wrap(pipe)
        assert (made.unet.dtype, made.vae.dtype, made.text_encoder.dtype) == (unet, vae, torch.float32)
    assert freectl.FreeControlPipeline.from_pipe(pipe, dtype=torch.bfloat16).vae.dtype == torch.bfloat16


# SDXL's own


def test_xl_takes_second_prompts_and_sizes(true_pipes, run):
    own = {
        "prompt_2": "a drawing",
        "negative_prompt": "grey",
        "negative_prompt_2": "blue",
        "original_size": (512, 384),
        "crops_coords_top_left": (8, 16),
        "target_size": (256, 192),
        "negative_original_size": (64, 64),
        "negative_crops_coords_top_left": (1, 2),
        "negative_target_size": (48, 56),
    }
    shared = {"num_inference_steps": 2, "latents": noise(), "output_type": "latent"}
    plain = true_pipes["sdxl"]
    expected = plain("a cat", width=SIZE[0], height=SIZE[1], guidance_scale=5.0, **shared, **own).images
    got = run("sdxl", **FREE, **shared, **own).images
    close(got, expected, 1e-6)
    for name in ("prompt_2", "negative_target_size"):
        left_out = {key: value for key, value in own.items() if key != name}
        assert not torch.equal(run("sdxl", **FREE, **shared, **left_out).images, got), name


def test_xl_takes_embeddings_and_hands_them_to_callbacks(pipes, run):
    plain = run("sdxl").images
    cond, uncond, pooled, negative_pooled = pipes["sdxl"].encode_prompt("a cat", negative_prompt="")
    # as the base model asks for: an empty negative prompt is zeros
    assert not negative_pooled.equal(torch.zeros_like(negative_pooled))
    given = {"prompt_embeds": cond, "negative_prompt_embeds": torch.zeros_like(uncond), "pooled_prompt_embeds": pooled}
    given["negative_pooled_prompt_embeds"] = torch.zeros_like(negative_pooled)
    seen: dict[str, tuple] = {}

    def look(_pipe: Any, _index: int, _timestep: int, tensors: dict) -> dict:
        seen.update({key: tuple(value.shape) for key, value in tensors.items()})
        return tensors

    names = list(pipes["sdxl"]._callback_tensor_inputs)
    got = run("sdxl", None, callback_on_step_end=look, callback_on_step_end_tensor_inputs=names, **given).images
    close(got, plain, 1e-6)
    assert seen["negative_add_text_embeds"] == tuple(pooled.shape)
    assert seen["add_text_embeds"] == (2, pooled.shape[1])  # both halves, as in diffusers
    assert seen["add_time_ids"] == (2, 6)
    del given["pooled_prompt_embeds"]
    with pytest.raises(InputError, match="pooled_prompt_embeds"):
        run("sdxl", None, **given)


def test_xl_vae_runs_in_single_precision(true_pipes):
    """`force_upcast`: SDXL's VAE overflows in fp16. It is fp16 again afterwards, also after a failure."""
    parts = copy.deepcopy(parts_of(true_pipes["sdxl"]))
    pipe = wrap(type(true_pipes["sdxl"])(**parts, add_watermarker=False).to(torch.float16))
    seen: list[torch.dtype] = []
    pipe.vae.decoder.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    pipe.vae.encoder.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    engine = Engine(pipe)
    latents = engine.encode_images([picture()])
    engine.decode(latents)
    assert seen == [torch.float32, torch.float32]
    assert latents.dtype == pipe.vae.dtype == torch.float16
    with pytest.raises(RuntimeError):
        engine.decode(latents[:, :3])
    assert pipe.vae.dtype == torch.float16


# From a folder, by the function and the command


@pytest.mark.parametrize("command", [False, True])
def test_an_xl_folder_end_to_end(true_pipes, tmp_path, monkeypatch, command):
    true_pipes["sdxl"].save_pretrained(tmp_path / "xl")
    picture().save(tmp_path / "in.png")
    few = {"seeds": 2, "seed_steps": 6, "components": 3}
    if command:
        settings = [part for key, value in few.items() for part in ("--set", f"{key}={value}")]
        given = ["--image", "in.png", "--prompt", "a dog", "--model", "xl", "--steps", "3", *settings]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["freectl", "edit", *given, "--format", "json"])
        with contextlib.suppress(SystemExit):
            main()
        image, settings = Image.open("out.png"), read_record("out.png")["settings"]
    else:
        result = freectl.edit(picture(), "a dog", model=str(tmp_path / "xl"), steps=3, **few)
        image, settings = result.image, result.settings
    assert image.size == SIZE
    assert np.asarray(image).std() > 0
    own = ("appearance_weight", "features")
    assert [settings[name] for name in own] == [families.SDXL.freecontrol[name] for name in own]
