"""What autograd keeps of a guided call, for full-size UNets on the meta device: bytes, no arithmetic, no memory.

python -m pytest tests/benchmarks/test_saved_activations.py -m benchmark -s -n 0
"""

import pytest
import torch
from diffusers import UNet2DConditionModel
from published import fused_attention, saved_bytes, saved_tensors
from toy import true_unet_config

from freectl.denoising.cost import Cost
from freectl.denoising.taps import tap
from freectl.methods.freecontrol.guide import frozen
from freectl.methods.pix2pix_zero.guide import CrossAttentionGuide
from freectl.models import families
from freectl.semantics.energies import structure_energy

pytestmark = pytest.mark.benchmark
GIB = 2**30
COMPONENTS = 64


@pytest.mark.parametrize(("name", "side", "limit"), [("sd1", 512, 0.35), ("sd2", 768, None), ("sdxl", 1024, 4.0)])
def test_saved_activations_of_a_guided_call(name, side, limit, monkeypatch, capsys):
    """One row, fp16, frozen weights, a graph that ends at the last tapped layer, the structure energy in fp32."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_unet_config(name, full=True)).eval().half()
        family = families.of(unet)
        sites = family.structure_sites(unet, *(family.freecontrol[name] for name in ("layers", "features")))
        latents = torch.zeros(1, 4, side // 8, side // 8, dtype=torch.float16, requires_grad=True)
        inputs = {"encoder_hidden_states": torch.zeros(1, 77, unet.config.cross_attention_dim, dtype=torch.float16)}
        if name == "sdxl":
            added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
            inputs["added_cond_kwargs"] = {key: value.half() for key, value in added.items()}
        with saved_tensors(unet) as kept, frozen(unet):
            with tap(unet, sites, cut_grad=True) as seen:
                unet(latents, 501, **inputs)
            call = saved_bytes(kept)
            for value in seen.pop_all().values():
                key = family.read(unet, value, (side // 8, side // 8))
                basis = torch.zeros(COMPONENTS, key.shape[-1])
                coordinates = key.float() @ basis.T
                assert structure_energy(coordinates, torch.zeros_like(coordinates)).requires_grad
        whole = saved_bytes(kept)
        with saved_tensors(unet) as plain:
            unet(latents, 501, **inputs)
    with capsys.disabled():
        print(  # noqa: T201
            f"{name} at {side} px, {len(sites)} sites: {call / GIB:.3f} GiB saved by the call, {whole / GIB:.3f} with "
            f"the energy; {saved_bytes(plain) / GIB:.3f} where nothing is frozen or cut"
        )
    assert call < saved_bytes(plain)
    if limit is not None:
        assert whole <= limit * GIB


def counted_block(unet, kept, largest):
    """A block of which the inputs alone are kept, and in `largest` the bytes in the largest of them."""

    def block(module, *given):
        kept.update({x.untyped_storage()._cdata: x for x in given if isinstance(x, torch.Tensor)})
        with saved_tensors(unet) as inside:
            output = module(*given)
        largest[0] = max(largest[0], saved_bytes(inside))
        return output

    return block


@pytest.mark.parametrize(("name", "side", "limit"), [("sd1", 512, 0.15), ("sdxl", 1024, 0.6)])
def test_saved_activations_where_blocks_are_run_again(name, side, limit, monkeypatch, capsys):
    """Inputs of the blocks, and what is in the largest of them while its own gradient is taken."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    largest = [0]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_unet_config(name, full=True)).eval().half()
        sites = families.of(unet).structure_sites(unet)
        latents = torch.zeros(1, 4, side // 8, side // 8, dtype=torch.float16, requires_grad=True)
        inputs = {"encoder_hidden_states": torch.zeros(1, 77, unet.config.cross_attention_dim, dtype=torch.float16)}
        if name == "sdxl":
            added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
            inputs["added_cond_kwargs"] = {key: value.half() for key, value in added.items()}
        with saved_tensors(unet) as kept, frozen(unet):
            block = counted_block(unet, kept, largest)
            monkeypatch.setattr("freectl.denoising.taps.run_again", block)
            unet.enable_gradient_checkpointing(block)
            with tap(unet, sites, cut_grad=True):
                unet(latents, 501, **inputs)
    whole = saved_bytes(kept) + largest[0]
    weights = sum(parameter.numel() for parameter in unet.parameters()) * 2
    with capsys.disabled():
        print(  # noqa: T201
            f"{name} at {side} px, blocks run again: {whole / GIB:.3f} GiB, of which {largest[0] / GIB:.3f} in the "
            f"largest block; the network's weights {weights / GIB:.2f}"
        )
    assert whole <= limit * GIB


@pytest.mark.parametrize("again", [False, True])
def test_saved_activations_of_pix2pix_zero(again, monkeypatch, capsys):
    """Both halves of SD 1.5 at 512 px, cut behind the last map; the maps of 16 layers are kept beside the blocks."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    largest = [0]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_unet_config("sd1", full=True)).eval().half()
        layers = [layer.name for layer in families.of(unet).cross_layers(unet)]
        guide = CrossAttentionGuide(layers, 0.1, True, {}, Cost())
        latents = torch.zeros(2, 4, 64, 64, dtype=torch.float16, requires_grad=True)
        text = torch.zeros(2, 77, unet.config.cross_attention_dim, dtype=torch.float16)
        with saved_tensors(unet) as kept, frozen(unet):
            if again:
                block = counted_block(unet, kept, largest)
                monkeypatch.setattr("freectl.denoising.taps.run_again", block)
                unet.enable_gradient_checkpointing(block)
            with tap(unet, guide.projections, cut_grad=True) as seen:
                unet(latents, 501, encoder_hidden_states=text)
            call = saved_bytes(kept) + largest[0]
            maps = guide._maps(unet, seen.pop_all(), {("edit", "cond"): slice(None)})["edit", "cond"]
            assert sum(one.square().sum() for one in maps.values()).requires_grad
    whole = saved_bytes(kept) + largest[0]
    with capsys.disabled():
        print(  # noqa: T201
            f"pix2pix-zero, blocks run again: {again}; {call / GIB:.3f} GiB of the network, {whole / GIB:.3f} with "
            f"{len(maps)} maps"
        )
    assert call < (0.5 if again else 2) * GIB
