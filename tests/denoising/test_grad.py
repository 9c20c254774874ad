"""Blocks that are run again give the gradient of blocks that keep everything, to the bit, and keep less."""

import pytest
import torch
from toy import toy_inputs, toy_unet

from freectl.denoising.grad import checkpointed, frozen, is_wanted
from freectl.denoising.taps import TapError, tap
from freectl.models.families.unet import self_attention_keys


def gradient(unet, sites):
    """The gradient of the tapped keys on the sample, the output, and bytes that autograd itself keeps."""
    inputs, kept = toy_inputs(unet, batch=1), {}
    inputs["sample"] = inputs["sample"].clone().requires_grad_(True)

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.enable_grad(), frozen(unet), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with tap(unet, sites, cut_grad=True) as seen:
            output = unet(**inputs, return_dict=False)[0]
        energy = sum(value.square().sum() for value in seen.pop_all().values())
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        return torch.autograd.grad(energy, inputs["sample"])[0], output, size


@pytest.mark.parametrize(("family", "block"), [("sd1", "up_blocks.1"), ("sdxl", "up_blocks.0")])
def test_the_gradient_is_the_same_to_the_bit_and_less_is_kept(family, block):
    unet = toy_unet(family).eval()
    sites = self_attention_keys(unet, block)
    plain = gradient(unet, sites)
    with checkpointed(unet):
        again = gradient(unet, sites)
    assert plain[0].abs().max() > 0
    assert torch.equal(again[0], plain[0])
    assert torch.equal(again[1], plain[1])
    assert again[2] < plain[2] / 2
    assert not unet.is_gradient_checkpointing
    with checkpointed(unet, False):
        assert not unet.is_gradient_checkpointing


def test_a_callers_own_checkpointing_is_left_alone():
    unet = toy_unet().eval()
    unet.enable_gradient_checkpointing()
    with checkpointed(unet), pytest.raises(TapError, match="checkpointing"):
        gradient(unet, self_attention_keys(unet, "up_blocks.1"))
    assert unet.is_gradient_checkpointing


def test_it_is_wanted_where_an_accelerator_has_little_left(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [is_wanted(choice, cpu) for choice in ("on", "off", "auto")] == [True, False, False]
    for free, wanted in ((4, True), (40, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free * 2**30, 80 * 2**30))
        assert is_wanted("auto", cuda) is wanted
