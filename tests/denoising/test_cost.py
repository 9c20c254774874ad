"""Cost: rows and shares against counts made by hand, stage times against a fake clock."""

import builtins
import math
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from torch import nn
from toy import toy_inputs, toy_unet

from freectl.denoising import cost as cost_module
from freectl.denoising.cost import Cost, peak_memory_mb, truncated_share
from freectl.denoising.taps import TapError, run_until, tap
from freectl.errors import FreectlError, InputError
from freectl.models.families.unet import self_attention_keys

TOKENS = 7


def multiply_adds(unet: UNet2DConditionModel, sites: list[str] | None) -> int:
    """Multiply-adds of one row counted from layer shapes, up to the last of `sites` or whole."""
    total = 0

    def conv(layer: nn.Conv2d, _args: tuple, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.in_channels * math.prod(layer.kernel_size) // layer.groups

    def linear(layer: nn.Linear, args: tuple, _out: torch.Tensor) -> None:
        nonlocal total
        total += args[0].numel() * layer.out_features

    def attend(layer: Attention, args: tuple, kwargs: dict, _out: torch.Tensor) -> None:
        nonlocal total
        context = kwargs.get("encoder_hidden_states")
        keys = args[0].shape[1] if context is None else context.shape[1]
        total += 2 * args[0].shape[1] * keys * layer.inner_dim

    handles = []
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(conv))
        elif isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(linear))
        elif isinstance(module, Attention):
            handles.append(module.register_forward_hook(attend, with_kwargs=True))
    inputs = toy_inputs(unet, batch=1, tokens=TOKENS)
    with torch.no_grad():
        run_until(unet, sites, **inputs) if sites else unet(**inputs)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize(
    ("family", "block"), [("sd1", "up_blocks.1"), ("sd2", "down_blocks.0"), ("sdxl", "up_blocks.0")]
)
def test_share_equals_a_count_from_layer_shapes(family, block):
    unet = toy_unet(family)
    sites = self_attention_keys(unet, block)
    share = truncated_share(unet, sites, (5, 4, 8, 8), TOKENS)
    assert share == pytest.approx(multiply_adds(unet, sites) / multiply_adds(unet, None), rel=1e-9)


def test_share_is_memoised_and_ignores_weights_adapters_and_random_state(unet):
    sites = self_attention_keys(unet, "up_blocks.1")
    share = truncated_share(unet, sites, (1, 4, 8, 8), TOKENS)
    cost_module._share.cache_clear()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    other = toy_unet(seed=3)
    state = torch.get_rng_state()
    assert truncated_share(unet, sites, (8, 8), TOKENS) == share
    assert truncated_share(other, sites, (2, 4, 8, 8), TOKENS) == share
    assert cost_module._share.cache_info().misses == 1
    assert torch.equal(state, torch.get_rng_state())
    assert truncated_share(unet, sites, (16, 16), TOKENS) != share


def test_share_says_what_it_cannot_do(unet):
    with pytest.raises(TapError, match="no module"):
        truncated_share(unet, ["nowhere"], (8, 8), TOKENS)
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    labelled = UNet2DConditionModel.from_config({**config, "num_class_embeds": 2})
    with pytest.raises(FreectlError, match="class embeddings"):
        truncated_share(labelled, self_attention_keys(unet, "up_blocks.1"), (8, 8), TOKENS)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@torch.no_grad()
def test_counting_whole_truncated_and_failed_forwards(family):
    unet = toy_unet(family)
    sites = self_attention_keys(unet, "up_blocks.1")
    inputs = toy_inputs(unet, batch=3, tokens=TOKENS)
    positional = (inputs.pop("sample"), inputs.pop("timestep"), inputs.pop("encoder_hidden_states"))
    cost = Cost()
    with cost.counting(unet) as same:
        unet(*positional, **inputs)
        assert same.row_forwards == cost.row_forwards == 3
        with tap(unet, sites):
            unet(**toy_inputs(unet, batch=2), return_dict=False)
        assert cost.row_forwards == 5
        run_until(unet, sites, *positional, **inputs)
        run_until(unet, sites, **toy_inputs(unet, batch=1, tokens=TOKENS))
        with pytest.raises(RuntimeError):
            unet(torch.zeros(2, 5, 8, 8), 1, positional[2], **inputs)
    share = truncated_share(unet, sites, (8, 8), TOKENS)
    assert cost.row_forwards == pytest.approx(5 + 4 * share)
    assert not unet._forward_hooks
    unet(*positional, **inputs)
    assert cost.row_forwards == pytest.approx(5 + 4 * share)


@torch.no_grad()
def test_an_error_in_the_body_keeps_the_count_and_removes_the_hook(unet):
    cost = Cost()
    sites = self_attention_keys(unet, "up_blocks.1")

    def body() -> None:
        with cost.counting(unet):
            run_until(unet, sites, **toy_inputs(unet, tokens=TOKENS))
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert cost.row_forwards == pytest.approx(2 * truncated_share(unet, sites, (8, 8), TOKENS))
    assert not unet._forward_hooks


def test_stages_nested_and_repeated(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(cost_module, "_now", lambda: float(next(clock)))
    cost = Cost()
    with cost.stage("load"):  # 0 to 1
        pass
    with cost.stage("synthesis"), cost.stage("analysis"), cost.stage("synthesis"):  # 2, 3, 4 to 5, 6, 7
        pass
    with pytest.raises(RuntimeError), cost.stage("analysis"):  # 8 to 9
        raise RuntimeError
    assert cost.seconds == {"load": 1, "analysis": 4, "synthesis": 5, "total": 7}
    with pytest.raises(InputError, match="load, analysis, synthesis"), cost.stage("total"):
        pass


def test_real_clock_runs_forward():
    cost = Cost()
    with cost.stage("load"):
        sum(range(1000))
    assert 0 < cost.seconds["load"] == cost.seconds["total"] < 10


def test_record_has_exactly_the_documented_fields():
    cost = Cost()
    cost.row_forwards += 4
    cost.add_backward(3)
    cost.add_backward(1)
    cost.cached["bases"] = True
    assert cost.to_dict() == {
        "row_forwards": 4,
        "row_backwards": 4,
        "seconds": {"load": 0.0, "analysis": 0.0, "synthesis": 0.0, "total": 0.0},
        "peak_memory_mb": None,
        "cached": {"bases": True, "inversion": False, "reference": False},
    }
    assert isinstance(cost.to_dict()["row_forwards"], int)
    cost.row_forwards += 0.25
    assert cost.to_dict()["row_forwards"] == 4.25
    cost.row_forwards = sum([0.1] * 10)
    assert cost.to_dict()["row_forwards"] == 1


def test_peak_memory_of_this_process_and_of_platforms_that_differ(monkeypatch):
    cost = Cost()
    cost.record_memory("cpu")
    assert 50 < cost.peak_memory_mb < 100_000
    linux = peak_memory_mb(torch.device("cpu"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_mb(torch.device("cpu")) == pytest.approx(linux / 1024, rel=0.1)
    real_import = builtins.__import__

    def without_resource(name: str, *args, **kwargs):
        if name == "resource":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_resource)
    assert peak_memory_mb(torch.device("cpu")) is None
