"""Taps: what they read is what the layer computed, what they leave behind is nothing."""

import gc
import sys
import weakref
from collections.abc import Callable

import pytest
import torch
from accelerate import cpu_offload
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from toy import toy_inputs, toy_unet

from freectl.denoising.taps import EarlyExit, TapError, run_until, tap
from freectl.models.families.unet import cross_attention_sites, self_attention_keys

BLOCK = "up_blocks.1"
LATE = "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k"


def keys_of(unet: nn.Module) -> list[str]:
    return self_attention_keys(unet, BLOCK)


def eps(unet: UNet2DConditionModel, inputs: dict | None = None) -> Tensor:
    return unet(**(inputs or toy_inputs(unet))).sample


def hooks_on(unet: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())


def with_grad(unet: UNet2DConditionModel) -> dict:
    unet.requires_grad_(False)
    inputs = toy_inputs(unet)
    inputs["sample"].requires_grad_(True)
    return inputs


def boom(_value: Tensor) -> Tensor:
    raise RuntimeError("boom")


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@torch.no_grad()
def test_capture_equals_layer_applied_by_hand_and_output_is_bit_equal(family):
    unet = toy_unet(family)
    before = eps(unet)
    seen_inputs: dict[str, Tensor] = {}
    sites = keys_of(unet)
    own = [
        unet.get_submodule(site).register_forward_hook(
            lambda _m, args, _out, site=site: seen_inputs.__setitem__(site, args[0])
        )
        for site in sites
    ]
    with tap(unet, sites) as seen:
        during = eps(unet)
        values = seen.pop_all()
    for handle in own:
        handle.remove()
    assert list(values) == sites
    for site in sites:
        assert torch.equal(values[site], unet.get_submodule(site)(seen_inputs[site]))
    assert torch.equal(before, during)
    assert torch.equal(before, eps(unet))
    assert hooks_on(unet) == 0


@torch.no_grad()
def test_several_forwards_in_one_with_and_reading_twice_raises(unet):
    site = keys_of(unet)[0]
    with tap(unet, [site, site]) as seen:
        eps(unet)
        first = seen.pop_all()
        with pytest.raises(TapError, match="did not fire"):
            seen.pop_all()
        eps(unet, toy_inputs(unet, seed=2))
        second = seen.pop_all()
    assert not torch.equal(first[site], second[site])
    with tap(unet, [site]) as seen:
        eps(unet)
        eps(unet, toy_inputs(unet, seed=2))
    assert torch.equal(seen.pop_all()[site], second[site])


@torch.no_grad()
def test_rows_keep_a_slice_of_the_batch(unet):
    sites = keys_of(unet)
    whole, part = (run_until(unet, sites, **toy_inputs(unet), rows=rows) for rows in (None, slice(1, 2)))
    assert all(torch.equal(whole[site][1:], part[site]) for site in sites)


@torch.no_grad()
def test_edit_replaces_output_and_capture_sees_it(unet):
    site = keys_of(unet)[1]
    plain = eps(unet)

    def copy_row(value: Tensor) -> Tensor:
        return torch.cat([value[:1], value[:1]])

    with tap(unet, [site], edits={site: copy_row}) as seen:
        edited = eps(unet)
    key = seen.pop_all()[site]
    assert torch.equal(key[0], key[1])
    assert torch.equal(edited[0], plain[0])
    assert not torch.equal(edited[1], plain[1])
    with tap(unet, edits={site: lambda value: value}):
        assert torch.equal(eps(unet), plain)


@torch.no_grad()
def test_nested_taps_each_keep_their_own(unet):
    first, second = keys_of(unet)[:2]
    with tap(unet, [first, second]) as outer:
        with tap(unet, [second], edits={first: torch.zeros_like}) as inner:
            eps(unet)
        assert list(inner.pop_all()) == [second]
        values = outer.pop_all()
    # outer captured before inner edited
    assert values[first].abs().sum() > 0
    assert hooks_on(unet) == 0


@torch.no_grad()
def test_early_exit_of_an_inner_or_outer_tap_reaches_its_own_with(unet):
    first, second = keys_of(unet)[:2]
    with tap(unet, [first, LATE]) as outer:
        values = run_until(unet, [first], **toy_inputs(unet))
        with pytest.raises(TapError, match=LATE):
            outer.pop_all()
        eps(unet)
        assert torch.equal(outer.pop_all()[first], values[first])
    after_call = False
    with tap(unet, [second], stop_after=True) as outer:
        with tap(unet, [first]) as inner:
            eps(unet)
        after_call = True
    assert not after_call
    assert list(outer.pop_all()) == [second]
    assert list(inner.pop_all()) == [first]


def test_truncated_forward_has_same_values_and_gradient(unet):
    sites = keys_of(unet)
    late_calls = []
    handle = unet.up_blocks[2].register_forward_hook(lambda *_: late_calls.append(1))
    grads = []
    for truncate in (False, True):
        inputs = with_grad(unet)
        if truncate:
            values = run_until(unet, sites, **inputs)
        else:
            with tap(unet, sites) as seen:
                eps(unet, inputs)
            values = seen.pop_all()
        loss = sum(value.square().sum() for value in values.values())
        grads.append(torch.autograd.grad(loss, inputs["sample"])[0])
    handle.remove()
    assert len(late_calls) == 1
    assert torch.equal(*grads)


@torch.no_grad()
def test_truncated_forward_frees_skip_connections_without_garbage_collection(unet):
    held: list[weakref.ref] = []
    kept: list[BaseException | None] = []
    handle = unet.conv_in.register_forward_hook(lambda _m, _args, out: held.append(weakref.ref(out)))
    keeper = unet.register_forward_hook(lambda *_: kept.append(sys.exception()), always_call=True)
    gc.disable()
    try:
        values = run_until(unet, keys_of(unet), **toy_inputs(unet))
        assert held[0]() is None
    finally:
        gc.enable()
        handle.remove()
        keeper.remove()
    assert len(values) == 2
    # although somebody keeps the exception, as a debugger does
    assert isinstance(kept[0], EarlyExit)
    assert hooks_on(unet) == 0


def test_cut_grad_same_eps_same_gradient_no_graph_behind(unet):
    sites = keys_of(unet)
    outputs, grads = [], []
    for cut in (False, True):
        inputs = with_grad(unet)
        with tap(unet, sites, cut_grad=cut) as seen:
            outputs.append(eps(unet, inputs))
            assert torch.is_grad_enabled()
            values = seen.pop_all()
        loss = sum(value.square().mean() for value in values.values())
        grads.append(torch.autograd.grad(loss, inputs["sample"])[0])
    assert torch.equal(*outputs)
    assert torch.equal(*grads)
    assert outputs[0].requires_grad
    assert not outputs[1].requires_grad


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_is_restored_after_an_error_behind_the_cut(unet, error):
    plain = eps(unet).detach()

    def fail(_value: Tensor) -> Tensor:
        raise error

    inputs = with_grad(unet)
    with pytest.raises(error), tap(unet, keys_of(unet), edits={LATE: fail}, cut_grad=True):
        eps(unet, inputs)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        with pytest.raises(error), tap(unet, keys_of(unet), edits={LATE: fail}, cut_grad=True), torch.enable_grad():
            eps(unet, inputs)
        assert not torch.is_grad_enabled()
    assert hooks_on(unet) == 0
    assert torch.equal(eps(unet), plain)


def test_grad_is_back_on_right_after_a_failed_forward(unet):
    with tap(unet, keys_of(unet), edits={LATE: boom}, cut_grad=True):
        with pytest.raises(RuntimeError, match="boom"):
            eps(unet, with_grad(unet))
        assert torch.is_grad_enabled()


@torch.no_grad()
def test_cut_grad_leaves_no_grad_alone(unet):
    with tap(unet, keys_of(unet), cut_grad=True):
        eps(unet)
        assert not torch.is_grad_enabled()


def test_gradient_checkpointing_first_value_and_same_gradient(unet):
    sites = keys_of(unet)
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            unet.enable_gradient_checkpointing()
        inputs = with_grad(unet)
        with tap(unet, sites, edits={sites[0]: lambda value: 2 * value}) as seen:
            eps(unet, inputs)
            loss = sum(value.square().sum() for value in seen.pop_all().values())
            grads.append(torch.autograd.grad(loss, inputs["sample"])[0])
            # the recomputation in backward must not refill the buffer
            with pytest.raises(TapError):
                seen.pop_all()
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)
    with pytest.raises(TapError, match="checkpointing"), tap(unet, sites, cut_grad=True):
        pass


def test_truncated_forward_under_gradient_checkpointing(unet):
    sites = keys_of(unet)
    grads = []
    for _ in range(2):
        inputs = with_grad(unet)
        loss = sum(value.square().sum() for value in run_until(unet, sites, **inputs).values())
        grads.append(torch.autograd.grad(loss, inputs["sample"])[0])
        unet.enable_gradient_checkpointing()
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_first_value_of_a_module_called_twice_is_kept():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.layer.weight, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    model = Twice()
    with tap(model, ["layer"]) as seen:
        assert model(torch.ones(1, 1)).item() == 4
    assert seen.pop_all()["layer"].item() == 2


@torch.no_grad()
def test_lora_key_is_the_final_key(unet):
    site = keys_of(unet)[0]
    plain = run_until(unet, [site], **toy_inputs(unet))[site]
    unet.add_adapter(LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, target_modules=["to_k"]))
    assert keys_of(unet)[0] == site
    layer = unet.get_submodule(site)
    seen_input: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, args, _out: seen_input.append(args[0]))
    value = run_until(unet, [site], **toy_inputs(unet))[site]
    handle.remove()
    assert not torch.equal(value, plain)
    assert torch.equal(value, layer(seen_input[0]))


@torch.no_grad()
def test_works_under_sequential_offload(unet):
    sites = keys_of(unet)
    plain = run_until(unet, sites, **toy_inputs(unet))
    cpu_offload(unet, torch.device("cpu"))
    offloaded = run_until(unet, sites, **toy_inputs(unet))
    assert all(torch.equal(plain[site], offloaded[site]) for site in sites)
    assert all(parameter.device.type == "meta" for parameter in unet.parameters())


@pytest.mark.parametrize("suffix", ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_k"])
@torch.no_grad()
def test_fused_projections_are_refused_until_unfused(unet, suffix):
    site = f"{BLOCK}.attentions.0.transformer_blocks.0.{suffix}"
    unet.fuse_qkv_projections()
    with pytest.raises(TapError, match="unfuse_qkv_projections"), tap(unet, [site]):
        pass
    assert hooks_on(unet) == 0
    unet.unfuse_qkv_projections()
    assert run_until(unet, [site], **toy_inputs(unet))[site].shape[0] == 2


@torch.no_grad()
def test_cross_attention_query_still_fires_when_fused(unet):
    query, _ = cross_attention_sites(unet, BLOCK)[0]
    unet.fuse_qkv_projections()
    assert query in run_until(unet, [query], **toy_inputs(unet))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda unet: tap(unet, ["up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_kk"]),
            r"close: .*attn1\.to_k",
        ),
        (lambda unet: tap(unet, [""]), "no module ''"),
        (lambda unet: tap(unet, edits={"nowhere": boom}), "no module 'nowhere'"),
        (lambda unet: tap(unet, stop_after=True), "at least one site"),
        (lambda unet: tap(unet, cut_grad=True), "at least one site"),
    ],
)
def test_bad_requests_name_the_reason_and_leave_no_hook(unet, call: Callable, message):
    with pytest.raises(TapError, match=message), call(unet):
        pass
    assert hooks_on(unet) == 0


@torch.no_grad()
def test_sites_that_do_not_fire_or_are_no_tensor_are_named(unet):
    # a layer that exists but is bypassed
    unet.register_module("unused", nn.Linear(2, 2))
    with tap(unet, ["unused"]) as seen:
        eps(unet)
    with pytest.raises(TapError, match="'unused' did not fire"):
        seen.pop_all()
    with pytest.raises(TapError, match="'unused' was never applied"), tap(unet, edits={"unused": boom}):
        eps(unet)
    with pytest.raises(TapError, match="never applied"), tap(unet, edits={"unused": boom}) as seen:  # noqa: PT012
        eps(unet)
        with pytest.raises(TapError, match="'unused' did not fire"):
            seen.pop_all()
    with pytest.raises(TapError, match=r"'down_blocks\.0' returns tuple"), tap(unet, ["down_blocks.0"]):
        eps(unet)
    assert hooks_on(unet) == 0


@torch.no_grad()
def test_layer_names_come_in_execution_order_for_exactly_one_block(unet):
    calls: list[str] = []
    sites = self_attention_keys(unet, "up_blocks")
    handles = [
        unet.get_submodule(site).register_forward_hook(lambda *_, site=site: calls.append(site)) for site in sites
    ]
    eps(unet)
    for handle in handles:
        handle.remove()
    assert calls == sites
    assert len(keys_of(unet)) == len(cross_attention_sites(unet, BLOCK)) == 2
    assert cross_attention_sites(unet, "mid_block")[0][0].endswith("attn2.to_q")
    unet.up_blocks.extend(toy_unet().up_blocks[1] for _ in range(8))
    assert "up_blocks.10" in dict(unet.named_modules())
    assert len(keys_of(unet)) == 2
    with pytest.raises(TapError, match=r"blocks that have: down_blocks\.0, down_blocks\.1, mid_block, up_blocks\.1"):
        self_attention_keys(toy_unet(), "up_blocks.0")


def test_fused_projections_of_flux_are_recognised_by_their_flag():
    """Its layers keep their processor; text projections are fused too, norms fire either way."""
    torch.manual_seed(0)
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(1, 4, 16), "encoder_hidden_states": torch.randn(1, 3, 32),
        "pooled_projections": torch.randn(1, 32), "timestep": torch.ones(1), "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip
    layer = "transformer_blocks.0.attn"
    sites = [f"{layer}.{leaf}" for leaf in ("to_k", "add_k_proj", "norm_k")]
    with torch.no_grad():
        plain = run_until(flux, sites, **inputs)
        flux.fuse_qkv_projections()
        for site in sites[:2]:
            with pytest.raises(TapError, match="fused"), tap(flux, [site]):
                pass
        torch.testing.assert_close(run_until(flux, sites[2:], **inputs)[sites[2]], plain[sites[2]])
        flux.unfuse_qkv_projections()
        again = run_until(flux, sites, **inputs)
    assert all(torch.equal(again[site], plain[site]) for site in sites)
