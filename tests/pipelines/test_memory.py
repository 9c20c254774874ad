"""What saves memory: it changes no picture that fits without, and what cannot be had with gradients is refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from toy import toy_vae

from freectl import methods
from freectl.denoising.cost import Cost
from freectl.errors import InputError
from freectl.models.engine import Engine
from freectl.models.vae_codec import factor_of
from freectl.pipelines.loading import TILE, set_vae_tiling
from freectl.pipelines.sd import FreeControlPipeline

PICTURE = Image.new("RGB", (32, 32), "red")
CALL = {"prompt": "a cat", "image": PICTURE, "num_inference_steps": 2, "output_type": "pt"}


@pytest.fixture
def pipe(toy_pipe):
    made = FreeControlPipeline(**copy.deepcopy(toy_pipe.components), requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def test_tiles_are_no_larger_than_their_limit_and_can_be_left(monkeypatch):
    vae, calls = toy_vae(), []
    vae.tile_sample_min_size, vae.tile_latent_min_size = 1024, 1024 // factor_of(vae)  # as in Stable Diffusion XL
    pipe = SimpleNamespace(vae=vae)
    monkeypatch.setattr(vae, "tiled_decode", lambda z, return_dict: calls.append(z.shape) or SimpleNamespace(sample=z))
    set_vae_tiling(pipe, True)
    side = vae.tile_latent_min_size
    assert (vae.tile_sample_min_size, side * factor_of(vae)) == (TILE, TILE)
    long = torch.zeros(1, vae.config.latent_channels, side + 8, 8)
    vae.decode(long[:, :, :side])
    assert calls == []
    vae.decode(long)
    assert calls == [long.shape]
    set_vae_tiling(pipe, False)
    vae.decode(long)
    assert calls == [long.shape]


def test_tiles_keep_small_pictures_and_have_cache_keys_of_their_own(pipe):
    plain, key = pipe(method=methods.get("sdedit"), generator=torch.Generator().manual_seed(0), **CALL), model_key(pipe)
    set_vae_tiling(pipe, True)
    tiled = pipe(method=methods.get("sdedit"), generator=torch.Generator().manual_seed(0), **CALL)
    assert torch.equal(plain.images, tiled.images)
    assert model_key(pipe) != key
    set_vae_tiling(pipe, False)
    assert model_key(pipe) == key


def model_key(pipe):
    return Engine(pipe).model_key()


def test_a_vae_without_tiles_is_refused():
    with pytest.raises(InputError, match="--vae-tiling: found with a SimpleNamespace"):
        set_vae_tiling(SimpleNamespace(vae=SimpleNamespace()), True)


def cast(unet):
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def group(unet):
    unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


@pytest.mark.parametrize(("change", "said"), [(cast, "layerwise casting"), (group, "group offload")])
def test_what_changes_weights_after_every_layer_goes_without_gradients(pipe, change, said):
    change(pipe.unet)
    for name in ("freecontrol", "pix2pix-zero"):
        with pytest.raises(InputError, match=f"{name}, which needs gradients, on a network with {said}"):
            pipe(method=methods.get(name), **CALL)
    assert torch.isfinite(pipe(method=methods.get("pnp"), **CALL).images).all()


def test_peak_memory_is_read_when_the_picture_is_decoded(pipe, monkeypatch):
    order, decode, record = [], Engine.decode, Cost.record_memory
    monkeypatch.setattr(Engine, "decode", lambda self, x: order.append("decode") or decode(self, x))
    monkeypatch.setattr(Cost, "record_memory", lambda self, d: order.append("memory") or record(self, d))
    assert pipe(method=methods.get("sdedit"), **CALL).cost["peak_memory_mb"] > 0
    assert order == ["decode", "memory"]
