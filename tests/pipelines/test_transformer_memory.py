"""What saves memory on every family of transformers: the same picture as without, or a refusal that names it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from dit_toys import TOYS
from flow_toy import small_sd3
from flux_kinds import picture

from freectl import methods
from freectl.errors import InputError
from freectl.models.networks import check_gradients
from freectl.pipelines.loading import set_vae_tiling

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipes(toys, tmp_path_factory) -> dict[str, Any]:
    """One of each class of network."""
    folder: Path = tmp_path_factory.mktemp("memory")
    made = {name: toys[name].ours for name in ("flux", "chroma", "klein")}
    made |= {name: toy.wrap(toy.build(folder / name)) for name, toy in TOYS.items()}
    return made | {"sd3": small_sd3(folder / "sd3")}


def run(pipe: Any, method: str = "sdedit", **settings: Any) -> np.ndarray:
    """Of SDEdit one step."""
    image = picture(size=(32, 32))
    return pipe("a cat", image, method=methods.get(method), num_inference_steps=2, output_type="np", cache=None,
                generator=torch.Generator().manual_seed(0), **settings).images  # fmt: skip


def copied(pipe: Any, part: str = "transformer") -> Any:
    """The same pipeline on a copy of one network."""
    made = copy.copy(pipe)
    made.register_modules(**{part: copy.deepcopy(getattr(pipe, part))})
    return made


def cast(pipe: Any) -> Any:
    """A copy whose network rests in fp8."""
    away = copied(pipe)
    away.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return away


def rounded(pipe: Any, narrow: Any) -> Any:
    """A copy whose weights are those of a cast network, in fp32."""
    wide = copied(pipe)
    moved = 0
    for weight, stored in zip(wide.transformer.parameters(), narrow.transformer.parameters(), strict=True):
        moved += not torch.equal(weight, stored.float())
        weight.data = stored.detach().float()
    assert moved > 20
    return wide


def test_offload_gives_the_same_picture(pipes):
    for name, pipe in pipes.items():
        expected, each = run(pipe), copied(pipe)
        cpu_offload(each.transformer, execution_device=CPU)
        np.testing.assert_array_equal(run(each), expected, err_msg=name)
        pipe.enable_model_cpu_offload(device="cpu")
        try:
            np.testing.assert_array_equal(run(pipe), expected, err_msg=name)
            assert hasattr(pipe.transformer, "_hf_hook"), name  # for the next call too
        finally:
            pipe.remove_all_hooks()


def test_groups_and_storage_in_eight_bits_give_the_picture_of_the_rounded_weights(pipes):
    for name, pipe in pipes.items():
        narrow = cast(pipe)
        expected = run(rounded(pipe, narrow))
        narrow.transformer.enable_group_offload(CPU, offload_type="leaf_level")
        np.testing.assert_array_equal(run(narrow), expected, err_msg=name)


def test_projections_run_in_the_dtype_that_a_cast_network_runs_in(pipes):
    """What these two compute themselves goes through layers whose weights rest in fp8."""
    settings = {"masactrl": {"words": "dog=cat", "start": 0.0, "layer_start": 0.0}, "p2p": {"self_stop": 0.0}}
    narrow = cast(pipes["sd3"])
    wide = rounded(pipes["sd3"], narrow)
    for name, given in settings.items():
        got, expected = (run(pipe, name, source_prompt="a dog", **given) for pipe in (narrow, wide))
        np.testing.assert_array_equal(got, expected, err_msg=name)


def changed(pipe: Any) -> Iterator[tuple[str, Any]]:
    """Networks whose weights are others after every layer, with the name of what does it."""
    yield "layerwise casting", cast(pipe)
    away = copied(pipe)
    away.transformer.enable_group_offload(CPU, offload_type="leaf_level")
    yield "group offload", away


def test_gradients_are_refused_where_weights_change_after_every_layer(pipes, monkeypatch):
    """By name, before any network runs."""
    for pipe in pipes.values():
        check_gradients(pipe.transformer, "freecontrol")
        for said, away in changed(pipe):
            monkeypatch.setattr(type(pipe), "encode_prompt", None)
            monkeypatch.setattr(type(pipe.vae), "encode", None)
            with pytest.raises(InputError, match=f"freecontrol, which needs gradients, on a network with {said}"):
                run(away, "freecontrol", source_prompt="a dog")
            monkeypatch.undo()


def test_tiles_keep_small_pictures_and_part_larger_ones(pipes):
    """Of each kind of autoencoder."""
    for name in ("sd3", "klein", "qwen-image"):
        pipe = copied(pipes[name], "vae")
        expected = run(pipe)
        set_vae_tiling(pipe, True)
        np.testing.assert_array_equal(run(pipe), expected, err_msg=name)
        own, calls = pipe.vae.tiled_decode, []
        pipe.vae.tiled_decode = lambda *given, own=own, calls=calls, **more: calls.append(1) or own(*given, **more)
        shrink(pipe.vae)
        parted = run(pipe)
        assert calls == [1], name
        assert parted.shape == expected.shape
        assert np.isfinite(parted).all()
        set_vae_tiling(pipe, False)
        np.testing.assert_array_equal(run(pipe), expected, err_msg=name)


def shrink(vae: Any) -> None:
    """Tiles of 16 px."""
    side = 16
    if hasattr(vae, "tile_sample_min_height"):
        vae.tile_sample_min_height = vae.tile_sample_min_width = side
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = side // 2
    else:
        vae.tile_latent_min_size = side * vae.tile_latent_min_size // vae.tile_sample_min_size
        vae.tile_sample_min_size = side
