"""Every tensor of a single file and of a LoRA is used, or told of; every weight of a network comes from a file."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from ldm_layout import single_file
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

from freectl.errors import InputError
from freectl.pipelines import accounts, lora
from freectl.pipelines.loading import load_pipeline, resolve_model
from freectl.pipelines.sd import FreeControlPipeline

CLIP, BIG_CLIP = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
EXTRA = [
    ("sd1", "model.diffusion_model.output_blocks.3.0.extra.weight"),
    ("sd1", "first_stage_model.decoder.up.0.extra.weight"),
    ("sd1", "model_ema.decay"),
    ("sdxl", f"{CLIP}extra.weight"),
    ("sdxl", f"{BIG_CLIP}transformer.resblocks.99.mlp.c_fc.weight"),
]
GONE = [
    ("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "unet.down_blocks.0.resnets.0.norm1.weight"),
    ("first_stage_model.decoder.conv_in.weight", "vae.decoder.conv_in.weight"),
    (f"{CLIP}encoder.layers.1.mlp.fc1.bias", "text_encoder.encoder.layers.1.mlp.fc1.bias"),
    (f"{BIG_CLIP}transformer.resblocks.1.mlp.c_fc.bias", "text_encoder_2.text_model.encoder.layers.1.mlp.fc1.bias"),
]


@pytest.fixture(scope="module")
def shapes(true_pipes) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of the tensors of each model in one file, some of the noise schedule's among them."""
    found = {name: {k: tuple(v.shape) for k, v in single_file(true_pipes[name]).items()} for name in ("sd1", "sdxl")}
    return {name: own | {"betas": (3,), "denoiser.sigmas": (3,)} for name, own in found.items()}


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_all_of_a_whole_file_is_used(true_pipes, shapes, name):
    pipe = true_pipes[name]
    assert accounts.unused_of_single_file(pipe, shapes[name]) == []
    assert accounts.missing_in_single_file(accounts.networks(pipe), shapes[name]) == []


@pytest.mark.parametrize(("name", "extra"), EXTRA)
def test_a_tensor_of_no_network_is_unused(true_pipes, shapes, name, extra):
    assert accounts.unused_of_single_file(true_pipes[name], shapes[name] | {extra: (2, 2)}) == [extra]


@pytest.mark.parametrize(("gone", "weight"), GONE)
def test_a_weight_that_is_not_in_the_file_is_missing(true_pipes, shapes, gone, weight):
    held = {name: shape for name, shape in shapes["sdxl"].items() if name != gone}
    assert accounts.missing_in_single_file(accounts.networks(true_pipes["sdxl"]), held) == [weight]


def load(path: Path) -> Any:
    return load_pipeline(resolve_model(str(path)), device="cpu", dtype=torch.float32)


def test_loading_tells_both(true_pipes, tmp_path):
    path = tmp_path / "one.safetensors"
    true_pipes["sd1"].save_pretrained(path.with_suffix(""))
    tensors = single_file(true_pipes["sd1"])
    save_file(tensors | {name: torch.ones(2, 2) for model, name in EXTRA if model == "sd1"}, path)
    (said,) = load(path).load_warnings
    assert said.startswith("the file holds 3 tensors that the model does not use: ")
    layer = "encoder.layers.1.mlp.fc1.bias"
    for gone, weight in (GONE[0], (f"cond_stage_model.transformer.text_model.{layer}", f"text_encoder.{layer}")):
        save_file({name: value for name, value in tensors.items() if name != gone}, path)
        with pytest.raises(InputError, match=rf"--model: found .* lack.? {weight}"):
            load(path)


@pytest.fixture(scope="module")
def layers(toy_pipe) -> dict[str, torch.Tensor]:
    """A LoRA on UNet and text encoder, as diffusers saves it."""
    found = {}
    for part, targets in (("unet", ["to_k", "to_v"]), ("text_encoder", ["q_proj"])):
        network = copy.deepcopy(getattr(toy_pipe, part))
        inject_adapter_in_model(LoraConfig(r=2, init_lora_weights=False, target_modules=targets), network, "own")
        own = get_peft_model_state_dict(network, adapter_name="own")
        found |= {f"{part}.{name}": value.clone() for name, value in own.items()}
    return found


def loaded(toy_pipe: Any, layers: dict[str, torch.Tensor], path: Path) -> list[str]:
    save_file(layers, path)
    return lora.load(FreeControlPipeline(**copy.deepcopy(toy_pipe).components), [str(path)])


def test_all_layers_of_a_lora_are_used_whoever_wrote_it(toy_pipe, layers, tmp_path):
    """As diffusers writes them, as transformers named CLIP's before, and as diffusers wrote before peft."""
    assert {name.partition(".")[0] for name in layers} == {"unet", "text_encoder"}
    older = {name.replace("text_encoder.", "text_encoder.text_model."): value for name, value in layers.items()}
    unet = {name: value for name, value in layers.items() if name.startswith("unet")}
    oldest = {name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value for name, value in unet.items()}
    for index, each in enumerate((layers, older, oldest)):
        assert loaded(toy_pipe, each, tmp_path / f"{index}.safetensors") == []


def pair(layer: str) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(2, 4), f"{layer}.lora_B.weight": torch.ones(4, 2)}


@pytest.mark.parametrize(
    "more",
    [
        ["unet.nowhere.to_k"],
        ["text_encoder.encoder.layers.7.self_attn.q_proj"],
        ["unet.nowhere.to_k", "unet.nowhere.to_v", "unet.nowhere.to_q"],
    ],
)
def test_layers_of_a_lora_that_the_model_lacks_are_said(toy_pipe, layers, tmp_path, more):
    path = tmp_path / "more.safetensors"
    (said,) = loaded(toy_pipe, layers | {key: value for one in more for key, value in pair(one).items()}, path)
    counts = f"{len(more)} of {len(layers) // 2 + len(more)}"
    assert said.startswith(f"--lora {path}: {counts} layers are not used: {more[0]}")


def test_half_a_layer_is_none(toy_pipe, layers, tmp_path):
    name = next(name for name in layers if name.endswith("lora_B.weight"))
    rest = {key: value for key, value in layers.items() if key != name}
    (said,) = loaded(toy_pipe, rest, tmp_path / "half.safetensors")
    assert f"1 of {len(layers) // 2} layers" in said
    assert said.endswith(name.removesuffix(".lora_B.weight"))


@pytest.mark.parametrize("layer", ["unet.nowhere.to_k", "text_encoder.nowhere.q_proj", "to_k"])
def test_a_lora_without_effect_is_refused(toy_pipe, tmp_path, layer, capfd):
    with pytest.raises(InputError, match="--lora: found .*odd"):
        loaded(toy_pipe, pair(layer), tmp_path / "odd.safetensors")
    assert "unsuccessful" not in capfd.readouterr().err  # diffusers' own lines
