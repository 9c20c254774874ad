"""LoRAs with strengths: one by its equation, several at once, and new content under an old name."""

import copy
import os

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

import freectl
from freectl.errors import FreectlError, InputError
from freectl.pipelines import lora
from freectl.tasks import edit as editing


@pytest.fixture(scope="module")
def model(toy_pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy_pipe.save_pretrained(folder)
    return str(folder)


def write(toy, folder, seed, name):
    unet = copy.deepcopy(toy.unet)
    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    layers = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=name)
    return str(folder / name)


@pytest.fixture
def loras(toy_pipe, tmp_path):
    return [write(toy_pipe, tmp_path, seed, f"{name}.safetensors") for seed, name in enumerate("ab")]


def picture():
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def edited(model, *given):
    result = freectl.edit(picture(), "a cat", "sdedit", model, steps=4, seed=1, lora=list(given))
    return result, np.asarray(result.image).astype(int)


def merged(model, folder, files, strengths):
    """A model folder whose weights are W + sum of strength * (alpha / r) B A, computed here."""
    from shutil import copytree

    copytree(model, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for file, strength in zip(files, strengths, strict=True):
        layers = load_file(file)
        for name, down in layers.items():
            if name.endswith("lora_A.weight"):
                target = name.removeprefix("unet.").removesuffix(".lora_A.weight") + ".weight"
                up = layers[name.replace("lora_A", "lora_B")]
                weights[target] = weights[target] + strength * (up @ down)  # without an alpha it is the rank
    save_file(weights, path)
    return str(folder)


@pytest.mark.parametrize("strengths", [(1.0,), (-0.7,), (0.8, 0.3)])
def test_strengths_are_factors_of_what_is_added_to_the_weights(model, loras, tmp_path, strengths):
    files = loras[: len(strengths)]
    given = [file if strength == 1 else f"{file}:{strength}" for file, strength in zip(files, strengths, strict=True)]
    result, found = edited(model, *given)
    alphas = load_file(files[0])
    assert not any(name.endswith("alpha") for name in alphas)
    plain = edited(model)[1]
    expected = edited(merged(model, tmp_path / "merged", files, strengths))[1]
    scale = np.abs(expected - plain).max()
    assert scale > 4
    assert np.abs(found - expected).max() <= max(2, 0.02 * scale)
    assert result.settings["lora"] == given


def test_strength_zero_is_the_model_itself(model, loras):
    assert np.array_equal(edited(model, f"{loras[0]}:0")[1], edited(model)[1])


def test_new_content_under_an_old_name_is_read(model, loras, toy_pipe, tmp_path):
    before = edited(model, loras[0])[1]
    write(toy_pipe, tmp_path, 7, "a.safetensors")
    os.utime(loras[0], ns=(1, 1))
    after = edited(model, loras[0])[1]
    assert not np.array_equal(before, after)
    editing._pipeline.cache_clear()
    assert np.array_equal(after, edited(model, loras[0])[1])


def test_new_weights_in_an_old_model_folder_are_read(model, tmp_path, loras):
    folder = merged(model, tmp_path / "m", loras[:1], [0.0])
    before = edited(folder)[1]
    path = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.1 for name, tensor in load_file(path).items()}, path)
    assert not np.array_equal(before, edited(folder)[1])


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("C:/x/a.safetensors:-1", "C:/x/a.safetensors", -1.0),
        ("odd:0.8", "odd:0.8", 1.0),
    ],
)
def test_texts(text, path, strength):
    found = lora.parse(text)
    assert (str(found.path), found.strength) == (path, strength)


def test_without_peft_it_is_said_before_anything_loads(model, loras, monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    monkeypatch.setattr(editing, "load_pipeline", None)
    with pytest.raises(InputError, match=r"^lora: found .* without peft; .*pip install 'freectl\[lora\]'"):
        edited(model, loras[0])


@pytest.mark.parametrize("number", ["much", "nan", "inf", "11", ""])
def test_strengths_that_are_none(number):
    with pytest.raises(InputError, match="--lora: found .*strength"):
        lora.parse(f"a.safetensors:{number}")


def test_one_file_twice_and_files_without_effect(model, loras, tmp_path):
    with pytest.raises(InputError, match="^lora: found .* twice"):
        edited(model, loras[0], f"{loras[0]}:0.5")
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises(FreectlError, match="lora"):
        edited(model, loras[0], str(tmp_path / "odd.safetensors"))
