"""What autograd keeps of a guided call of packed transformers at 1024 px, and stored shares; on the meta device.

python -m pytest tests/benchmarks/test_saved_transformers.py -m benchmark -s -n 0
"""

from typing import Any

import pytest
import torch
from diffusers import ChromaTransformer2DModel, Flux2Transformer2DModel, FluxTransformer2DModel
from published import fused_attention, saved_bytes, saved_tensors

from freectl.denoising import shares
from freectl.denoising.sampler import TEXT_MASK
from freectl.denoising.taps import tap
from freectl.methods.freecontrol.guide import frozen
from freectl.models import families

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(0)]
GIB = 2**30
TOKENS = 512
KLEIN_9B = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
MODELS: dict[str, tuple[Any, dict[str, Any], float]] = {
    "flux": (FluxTransformer2DModel, {"guidance_embeds": True}, 5.3),
    "chroma": (ChromaTransformer2DModel, {}, 5.3),
    "klein 4B": (Flux2Transformer2DModel, KLEIN_4B | {"guidance_embeds": False}, 2.4),
    "klein 9B": (Flux2Transformer2DModel, KLEIN_9B | {"guidance_embeds": False}, 5.0),
    "flux2": (Flux2Transformer2DModel, {}, 8.0),
}
"""Class, configuration, and GiB that a guided call may keep."""


def inputs(network: Any, family: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Latents of 1024 px, text and what is added to it."""
    config = network.config
    added = {"pooled_projections": torch.zeros(1, config.get("pooled_projection_dim") or 0, dtype=dtype)}
    added |= {TEXT_MASK: torch.ones(1, TOKENS, dtype=dtype), "guidance": torch.ones(1)}
    wanted = {"flux": ("pooled_projections", "guidance"), "chroma": (TEXT_MASK,), "flux2": ("guidance",)}
    latents = torch.zeros(1, *family.latent_shape(network), dtype=dtype, requires_grad=True)
    text = torch.zeros(1, TOKENS, config.joint_attention_dim, dtype=dtype)
    return latents, text, {name: added[name] for name in wanted.get(family.name, ())}


@pytest.mark.parametrize("name", MODELS)
def test_saved_activations_of_a_guided_call(name, monkeypatch, capsys):
    """One row, bf16, frozen weights, a graph that ends at the last tapped layer."""
    cls, config, limit = MODELS[name]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    with torch.device("meta"):
        network = cls(**config).eval().to(torch.bfloat16)
        family = families.of(network)
        sites = family.structure_sites(network)
        latents, text, added = inputs(network, family, torch.bfloat16)
        with saved_tensors(network) as kept, frozen(network), tap(network, sites, cut_grad=True):
            family.call(network, latents, 500.0, text, added, None)
    weights = 2 * sum(weight.numel() for weight in network.parameters()) / GIB
    with capsys.disabled():
        print(f"{name} at 1024 px: {saved_bytes(kept) / GIB:.2f} GiB kept, weights {weights:.1f} GiB")  # noqa: T201
    assert saved_bytes(kept) <= limit * GIB


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layers", ["all", "first"])
def test_stored_shares_are_what_is_counted(name, layers):
    cls, config, _ = MODELS[name]
    with torch.device("meta"), torch.no_grad():
        network = cls(**config).eval()
        family = families.of(network)
        sites = family.structure_sites(network, layers)
        latents, text, added = inputs(network, family, torch.float32)
        size = (latents.shape[-2], latents.shape[-1])
        told = {"hidden_states": family.packed(network, latents), "encoder_hidden_states": text}
        told |= {"timestep": torch.ones(1), "txt_ids": family.text_places(TOKENS, "meta")}
        told |= {"img_ids": family.places(size, "meta"), **family.inputs(added, size)}
        part, whole = shares.counted(network, sites, told)
    assert shares.stored_share(cls.__name__, network.config, sites, (4096, 1), TOKENS) == part / whole
