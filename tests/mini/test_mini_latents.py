"""Latents of training scenes: the same numbers whether encoded now, kept in memory or read from a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from freectl.mini.domain import HELD_OUT
from freectl.mini.scene import render
from freectl.mini.tensors import to_tensor
from freectl.mini.training.data import batch_rng, strata
from freectl.mini.training.latents import FIRST, LatentPool, TrainingLatents, numbered_scene, pool_size
from freectl.mini.training.recipe import Recipe


def test_a_latent_is_made_once_and_outlives_the_process(tmp_path: Path) -> None:
    made: list[int] = []

    def make(number: int) -> torch.Tensor:
        made.append(number)
        return torch.full((2, 3, 3), number + 1.0)

    file = tmp_path / "latents" / "some.f16"
    first = LatentPool(make, (2, 3, 3), file).latents([4, 0, 4])
    again = LatentPool(make, (2, 3, 3), file).latents([0, 7, 4])
    assert made == [4, 0, 7]
    assert first[:, 0, 0, 0].tolist() == [5, 1, 5]
    assert again[:, 1, 2, 2].tolist() == [1, 8, 5]
    assert first.dtype == torch.float32
    assert torch.equal(LatentPool(make, (2, 3, 3)).latents([4, 0, 4]), first)
    # a file of another shape is begun anew
    assert LatentPool(lambda number: torch.ones(1, 3, 3), (1, 3, 3), file).latents([4]).shape == (1, 1, 3, 3)
    assert np.fromfile(file, np.float16, 9).tolist() == [0] * 9


def test_batches_do_not_depend_on_what_was_encoded_before(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe
) -> None:
    fresh = TrainingLatents(tiny_model, tiny_recipe)
    used = TrainingLatents(tiny_model, tiny_recipe, tmp_path)
    for step in range(3):
        used.batch(1, step, 3)
    scenes, latents, captions = fresh.batch(1, 2, 3)
    for other in (used.batch(1, 2, 3), TrainingLatents(tiny_model, tiny_recipe, tmp_path).batch(1, 2, 3)):
        assert other.scenes == scenes
        assert other.captions == captions
        assert torch.equal(other.latents, latents)
    assert used.batch(2, 2, 3).scenes != scenes


def test_pooled_latents_are_those_of_their_scenes(tiny_model: Path, tiny_recipe: Recipe) -> None:
    """Against the autoencoder on the whole batch, to half precision."""
    source = TrainingLatents(tiny_model, tiny_recipe)
    scenes, latents, _ = source.batch(0, 0, 4)
    pictures = to_tensor([render(scene, 128) for scene in scenes])
    expected = source.vae.encode(pictures).latent_dist.mode() * 0.5
    torch.testing.assert_close(latents, expected, rtol=2e-3, atol=2e-3)
    assert latents.shape == (4, 8, 16, 16)


def test_the_key_is_of_the_encoder_alone(tiny_model: Path, tiny_recipe: Recipe) -> None:
    source = TrainingLatents(tiny_model, tiny_recipe)
    before = source.key
    with torch.no_grad():
        source.vae.decoder.conv_in.weight.add_(1)
    assert source.key == before
    with torch.no_grad():
        source.vae.encoder.conv_in.weight.add_(1)
    assert source.key != before


def test_recipes_without_reuse_draw_new_scenes(tiny_model: Path, tiny_recipe: Recipe) -> None:
    source = TrainingLatents(tiny_model, replace(tiny_recipe, reuse=1))
    assert not source.pools
    assert source.batch(0, 0, 2).scenes != source.batch(0, 1, 2).scenes
    assert not source.pools


def test_the_pool_grows_to_the_reuse_asked_for() -> None:
    assert pool_size(0, 32, 8) == FIRST
    seen, pictures = pool_size(100_000, 32, 8), 100_000 * 32
    assert pictures / seen == pytest.approx(8, rel=0.01)
    scenes = [numbered_scene(3, number) for number in range(300)]
    assert scenes == [numbered_scene(3, number) for number in range(300)]
    assert not any((scene.object, scene.style) in HELD_OUT for scene in scenes)
    assert len(set(scenes)) == 300


def test_strata_hold_one_number_each() -> None:
    drawn = strata(10, torch.Generator().manual_seed(0))
    assert (drawn * 10).long().tolist() == list(range(10))
    assert batch_rng(0, 1).random() == batch_rng(0, 1).random()
