"""Arguments of a call: pictures in every form, embeddings of any length, and what is refused by its name."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from method_kit import ON_UNETS
from PIL import Image, ImageOps
from toy import TEXT_WIDTH

import freectl
from freectl import methods
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.methods.base import Condition
from freectl.models.engine import Engine

STEPS = 5
EVERY = sorted(ON_UNETS)
FEW = {"seeds": 2, "seed_steps": 10, "components": 3}


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache()


@pytest.fixture(scope="module")
def pipe(toy_pipe) -> freectl.FreeControlPipeline:
    made = freectl.FreeControlPipeline(**toy_pipe.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def run(pipe, cache):
    def call(image: Any = None, prompt: Any = "a cat", *, name: str = "pnp", **options: Any) -> Any:
        options = {"num_inference_steps": STEPS, "cache": cache, "output_type": "latent"} | options
        options["generator"] = torch.Generator().manual_seed(0)
        method = options.pop("method", methods.get(name))
        return pipe(prompt, picture() if image is None else image, method=method, **options)

    return call


# Pictures


def test_arrays_tensors_and_lists_are_the_same_pictures(run):
    one, other = picture(), picture(1)
    arrays = np.stack([np.asarray(one), np.asarray(other)])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    expected = run([one, other], ["a cat", "a dog"]).images
    for given in (arrays, list(arrays), arrays / 255, tensors, tensors / 255, tensors / 127.5 - 1, list(tensors)):
        assert torch.equal(run(given, ["a cat", "a dog"]).images, expected)


def test_latents_are_taken_as_they_are(pipe, run):
    """Those of a picture give what the picture gives, though the decoded picture is another one."""
    engine, both = Engine(pipe), [picture(), picture(1)]
    latents = engine.encode_images(both)
    for name in ("pnp", "sdedit", "ddpm-inversion"):
        expected = run(both, ["a cat", "a dog"], name=name).images
        assert torch.equal(run(latents, ["a cat", "a dog"], name=name).images, expected)
    assert not torch.equal(run(latents[:1] * 1.1).images, run().images)


@pytest.mark.parametrize("door", ["image", "appearance_image", "mask", "keep", "condition"])
def test_a_picture_is_read_as_a_person_sees_it(run, tmp_path, door):
    """Turned by its EXIF, transparent places composited: the same as the upright opaque picture."""
    seen = picture(3) if door in ("image", "appearance_image", "condition") else Image.new("RGB", (32, 32), "black")
    background = "black" if door in ("mask", "keep") else "white"
    seen.paste(background, (0, 0, 8, 32))
    if background == "black":
        seen.paste("white", (16, 0, 32, 32))
    raw = seen.transpose(Image.Transpose.ROTATE_90).convert("RGBA")
    hidden = np.array(raw)
    hidden[-8:] = (200, 30, 90, 0)  # the left of the upright picture
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / "phone.png"
    Image.fromarray(hidden).save(path, exif=exif)
    assert np.array_equal(
        np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[:, 8:], np.asarray(seen)[:, 8:]
    )
    images = []
    for one in (Image.open(path), seen):
        options: dict[str, Any] = {"name": "ctrlx"} if door == "appearance_image" else {}
        if door == "condition":
            options = {"name": "ctrlx", "conditions": [Condition(one)]}
        elif door == "mask":
            options = {"method": methods.get("freecontrol"), "concept": "cat", **FEW}
        if door not in ("image", "condition"):
            options[door] = one
        given = {"image": one} if door == "image" else {}
        if door == "condition":
            images.append(run_conditions(run, options))
        else:
            images.append(run(**given, **options).images)
    assert torch.equal(*images)


def run_conditions(run: Any, options: dict[str, Any]) -> torch.Tensor:
    pipe = inspect.getclosurevars(run).nonlocals["pipe"]
    options = options | {"method": methods.get(options.pop("name")), "generator": torch.Generator().manual_seed(0)}
    return pipe("a cat", num_inference_steps=STEPS, output_type="latent", **options).images


# Embeddings


@pytest.mark.parametrize("name", EVERY)
def test_embeddings_of_any_length(pipe, run, name):
    """Two chunks of a long prompt, the negative one shorter: every method takes them, and given at one length already,
    the shorter followed by an empty text's, they give the same."""
    cond, uncond = pipe.encode_prompt("a cat", "cpu", 1, True, "a dog")
    empty = pipe.encode_prompt("", "cpu", 1, False)[0]
    long = torch.cat([cond, pipe.encode_prompt("red", "cpu", 1, False)[0]], 1)
    options = {"name": name, "source_prompt": "a dog", **(FEW if name == "freecontrol" else {})}
    got = run(None, None, prompt_embeds=long, negative_prompt_embeds=uncond, **options)
    padded = torch.cat([uncond, empty], 1)
    assert torch.equal(got.images, run(None, None, prompt_embeds=long, negative_prompt_embeds=padded, **options).images)
    assert torch.isfinite(got.images).all()


def test_long_embeddings_without_control_are_diffusers_own(toy_pipe, run):
    cond, uncond = toy_pipe.encode_prompt("a cat", "cpu", 1, True, "a dog")
    options = {"prompt_embeds": torch.cat([cond, cond], 1), "negative_prompt_embeds": torch.cat([uncond, uncond], 1)}
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    options["guidance_scale"] = 5.0
    free = {"method": None, "structure_strength": 0.0, "latents": noise, **FEW}
    expected = toy_pipe(num_inference_steps=STEPS, latents=noise, output_type="latent", **options).images
    torch.testing.assert_close(run(None, None, **options, **free).images, expected, rtol=0, atol=1e-5)


def test_text_beyond_the_encoder_is_said(run):
    """In the toy tokenizer every letter is a token, so that 75 letters fit."""
    words = " ".join(["abcde"] * 15)
    assert not run(None, words, source_prompt=words).warnings
    out = run(None, f"{words} unseen words", source_prompt=f"{words[:-2]} partly", negative_prompt=f"{words} more")
    assert out.warnings == [
        "prompt is longer than the 77 tokens that the model reads (long_prompts reads all); not seen: 'unseen words'",
        "negative_prompt is longer than the 77 tokens that the model reads (long_prompts reads all); not seen: 'more'",
        "source_prompt is longer than the 77 tokens that the model reads (long_prompts reads all); not seen: 'partly'",
    ]
    with pytest.raises(InputError, match="concept: found 'unseen', which is not in"):
        run(
            None,
            f"{words} unseen",
            source_prompt=f"{words} unseen",
            concept="unseen",
            method=None,
            mask="attention",
            **FEW,
        )


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": 0.5}, "strength: found given to pnp; allowed: .*sdedit"),
        ({"clip_skip": 1}, "clip_skip: "),
        ({"mask_image": picture()}, "mask_image: found .*allowed: mask, white .* or keep"),
        ({"ip_adapter_image": picture()}, "ip_adapter_image: found .*appearance_image"),
        ({"guidance_rescale": 0.7}, "guidance_rescale: "),
        ({"timesteps": [1, 2]}, "timesteps: .*num_inference_steps"),
        ({"method": "pnp"}, r"method: found 'pnp'; allowed: .*methods.get\('pnp'\)"),
        ({"guidance_scal": 3}, r"guidance_scal: .*did you mean 'guidance_scale'"),
        ({"feature_stopp": 0.5}, r"feature_stopp: .*did you mean 'feature_stop"),
        ({"self_stop": 2.0, "name": "p2p"}, "self_stop: found 2.0; allowed: .*less than or equal to 1"),
        ({"num_inference_steps": 2.5}, "num_inference_steps: found 2.5"),
        ({"num_inference_steps": 5000}, "num_inference_steps: found 5000"),
        ({"guidance_scale": float("nan")}, "guidance_scale: found nan"),
        ({"guidance_scale": "7"}, "guidance_scale: found '7'"),
        ({"eta": -1}, "eta: found -1"),
        ({"width": 32.0}, "width: found 32.0"),
        ({"latents": torch.zeros(1, 4, 9, 9)}, r"latents: found \(1, 4, 9, 9\); allowed: \(1, 4, 8, 8\)"),
        ({"latents": torch.full((1, 4, 8, 8), torch.nan)}, "latents: "),
        ({"image": np.zeros((2, 2, 2, 2, 2))}, "image: found an array of the shape"),
        ({"image": 3}, "image: found a int"),
        ({"image": []}, "image: found no picture"),
        ({"mask": 3, "name": "masactrl"}, "mask: found a int"),
        ({"appearance_image": picture()}, "appearance_image: found given to pnp"),
        ({"keep": "background"}, "keep: "),
        ({"prompt": None, "prompt_embeds": torch.zeros(77, TEXT_WIDTH)}, "negative_prompt_embeds: found None"),
        ({"conditions": [picture()]}, "image: found given with conditions"),
    ],
)
def test_an_error_names_the_argument_in_one_line(run, options, said):
    with pytest.raises(InputError) as caught:
        run(**options)
    assert re.match(said, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_arguments_of_diffusers_at_their_defaults_are_no_error(run):
    options = {"guidance_rescale": 0.0, "clip_skip": None, "ip_adapter_image": None, "timesteps": None}
    assert torch.equal(run(**options).images, run().images)


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        (freectl.FreeControlPipeline, StableDiffusionPipeline),
        (freectl.FreeControlXLPipeline, StableDiffusionXLPipeline),
    ],
)
def test_the_signature_tells_every_argument(own, plain):
    """All of diffusers' but those that have no place here, which are refused by name, and the same defaults."""
    from freectl.pipelines.arguments import REFUSED

    ours, theirs = (inspect.signature(cls.__call__).parameters for cls in (own, plain))
    assert set(theirs) - set(ours) <= {*REFUSED, "kwargs"}
    assert {"image", "source_prompt", "concept", "mask", "keep", "method", "settings"} <= set(ours)
    assert not any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in ours.values())
    for name in ("num_inference_steps", "eta", "output_type", "return_dict", "latents", "num_images_per_prompt"):
        assert ours[name].default == theirs[name].default


def test_a_pipeline_without_a_scheduler_is_made_and_asks_for_one(toy_pipe, toy_xl_pipe):
    for cls, plain in ((freectl.FreeControlPipeline, toy_pipe), (freectl.FreeControlXLPipeline, toy_xl_pipe)):
        options = {} if plain is toy_xl_pipe else {"requires_safety_checker": False}
        made = cls(**{**plain.components, "scheduler": None}, **options)
        made.set_progress_bar_config(disable=True)
        with pytest.raises(InputError, match="scheduler: found"):
            made("a cat", picture())
        made.scheduler = plain.scheduler
        out = made("a cat", picture(), method=methods.get("pnp"), num_inference_steps=2, output_type="latent")
        assert torch.isfinite(out.images).all()


@pytest.mark.parametrize("xl", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_documented_dynamic_guidance_callback(toy_pipe, toy_xl_pipe, xl, count):
    """diffusers' example, word for word but for XL's names, gives what diffusers' own pipeline gives with it."""
    plain = toy_xl_pipe if xl else toy_pipe
    cls = freectl.FreeControlXLPipeline if xl else freectl.FreeControlPipeline
    made = cls(**plain.components, **({} if xl else {"requires_safety_checker": False}))
    made.set_progress_bar_config(disable=True)
    names = ["prompt_embeds", *(["add_text_embeds", "add_time_ids"] if xl else [])]

    def callback_dynamic_cfg(pipe, step_index, timestep, callback_kwargs):
        if step_index == int(pipe.num_timesteps * 0.4):
            for name in names:
                callback_kwargs[name] = callback_kwargs[name].chunk(2)[-1]
            pipe._guidance_scale = 0.0
        return callback_kwargs

    noise = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    prompts = ["a cat", "a dog"][:count]
    options = {"callback_on_step_end": callback_dynamic_cfg, "callback_on_step_end_tensor_inputs": names}
    options |= {"num_inference_steps": 5, "latents": noise, "output_type": "latent"}
    expected = plain(prompts, guidance_scale=6.0, height=32, width=32, **options).images
    free = {"structure_strength": 0.0, "concept": "cat", **FEW}
    got = made(prompts, picture(), guidance_scale=6.0, **options, **free).images
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_no_dump_of_pydantic_anywhere(run):
    with pytest.raises(InputError) as caught:
        run(method=methods.get("freecontrol"), seeds="many", concept="cat")
    assert "pydantic" not in str(caught.value)
    assert caught.value.option == "seeds"


def test_a_file_is_a_picture_too(run, tmp_path: Path):
    picture().save(tmp_path / "a.png")
    assert torch.equal(run(str(tmp_path / "a.png")).images, run().images)
