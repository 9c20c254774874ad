"""LoRA layers of text encoders: each spelling is W + strength (alpha / r) B A, and leaves nothing behind."""

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from freectl.errors import InputError
from freectl.pipelines import lora
from freectl.pipelines.sd import FreeControlPipeline
from freectl.pipelines.sdxl import FreeControlXLPipeline

RANKS = {"encoder.layers.0.self_attn.q_proj": (2, 2.0), "encoder.layers.1.mlp.fc1": (3, 1.5)}
"""(rank, alpha) of layers."""


def halves(encoder: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) of each layer."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for layer, (rank, _) in RANKS.items():
        rows, columns = _at(encoder, layer).weight.shape
        found[layer] = (torch.randn(rank, columns, generator=random), torch.randn(rows, rank, generator=random))
    return found


def _at(encoder: Any, layer: str) -> Any:
    return (encoder.text_model if hasattr(encoder, "text_model") else encoder).get_submodule(layer)


def written(encoder: Any, spelling: str, part: str = "text_encoder") -> dict[str, Tensor]:
    """As the common trainer (kohya), diffusers before peft, and peft write the layers; the last has no alphas."""
    made = {}
    for layer, (a, b) in halves(encoder).items():
        if spelling == "kohya":
            short = {"text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[part]
            name = f"{short}_text_model_{layer.replace('.', '_')}"
            made |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}
            made[f"{name}.alpha"] = torch.tensor(RANKS[layer][1])
        else:
            downs, ups = (
                ("lora_A", "lora_B") if spelling == "peft" else ("lora_linear_layer.down", "lora_linear_layer.up")
            )
            made |= {f"{part}.text_model.{layer}.{downs}.weight": a, f"{part}.text_model.{layer}.{ups}.weight": b}
    return made


def merged(encoder: Any, strength: float, alphas: bool) -> Any:
    """The encoder with the layers added to its weights."""
    whole = copy.deepcopy(encoder)
    for layer, (a, b) in halves(encoder).items():
        rank, alpha = RANKS[layer]
        _at(whole, layer).weight.data += strength * (alpha / rank if alphas else 1) * (b @ a)
    return whole


def embedded(encoder: Any, texts: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(texts, output_hidden_states=True).hidden_states[-1]


@pytest.fixture
def pipe(toy_pipe):
    return FreeControlPipeline(**copy.deepcopy(toy_pipe).components)


@pytest.mark.parametrize("strength", [1.0, -0.5])
@pytest.mark.parametrize("spelling", ["kohya", "old", "peft"])
def test_layers_are_added_to_the_weights(toy_pipe, pipe, tmp_path, spelling, strength):
    path, encoder = tmp_path / "a.safetensors", toy_pipe.text_encoder
    save_file(written(encoder, spelling), path)
    assert lora.load(pipe, [str(path) if strength == 1 else f"{path}:{strength}"]) == []
    texts = torch.tensor([[512, 70, 71, 513]])
    expected = embedded(merged(encoder, strength, spelling == "kohya"), texts)
    assert (expected - embedded(encoder, texts)).abs().max() > 0.1
    torch.testing.assert_close(embedded(pipe.text_encoder, texts), expected, atol=1e-4, rtol=1e-4)


def test_both_encoders_of_xl(toy_xl_pipe, tmp_path):
    pipe = FreeControlXLPipeline(**copy.deepcopy(toy_xl_pipe).components)
    parts, texts = ("text_encoder", "text_encoder_2"), torch.tensor([[512, 70, 71, 513]])
    layers = {name: t for part in parts for name, t in written(getattr(pipe, part), "peft", part).items()}
    save_file(layers, tmp_path / "a.safetensors")
    assert lora.load(pipe, [str(tmp_path / "a.safetensors")]) == []
    for part in parts:
        expected = embedded(merged(getattr(toy_xl_pipe, part), 1.0, False), texts)
        torch.testing.assert_close(embedded(getattr(pipe, part), texts), expected, atol=1e-4, rtol=1e-4)


def test_diffusers_own_ways_to_change_and_to_remove_adapters(toy_pipe, pipe, tmp_path):
    encoder, texts = toy_pipe.text_encoder, torch.tensor([[512, 70, 71, 513]])
    save_file(written(encoder, "peft"), tmp_path / "a.safetensors")
    pipe.load_lora_weights(tmp_path / "a.safetensors", adapter_name="one")
    assert pipe.get_list_adapters() == {"text_encoder": ["one"]}
    with pytest.raises(ValueError, match="already in use"):
        pipe.load_lora_weights(tmp_path / "a.safetensors", adapter_name="one")
    pipe.set_adapters("one", 0.25)
    quarter = embedded(merged(encoder, 0.25, False), texts)
    torch.testing.assert_close(embedded(pipe.text_encoder, texts), quarter, atol=1e-4, rtol=1e-4)
    pipe.disable_lora()
    assert torch.equal(embedded(pipe.text_encoder, texts), embedded(encoder, texts))
    pipe.unload_lora_weights()
    assert torch.equal(embedded(pipe.text_encoder, texts), embedded(encoder, texts))
    assert list(pipe.text_encoder.state_dict()) == list(encoder.state_dict())


def test_a_layer_of_another_shape_is_refused(pipe, tmp_path):
    save_file(
        {
            "text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 9),
            "text_encoder.encoder.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(16, 2),
        },
        tmp_path / "odd.safetensors",
    )
    with pytest.raises(InputError, match="--lora: found .*odd"):
        lora.load(pipe, [str(tmp_path / "odd.safetensors")])
