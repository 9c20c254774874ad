"""A model folder of the 128 px world in miniature, its weights random: what the parts that come after a VAE need."""

from dataclasses import replace
from pathlib import Path

import pytest

from freectl.mini.training.recipe import SHIPPED, Recipe
from freectl.mini.training.tokenizer import write_tokenizer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import VAEPart


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return replace(
        SHIPPED,
        vae_widths=(4, 4, 4, 4),
        widths=(8, 8, 8),
        heads=1,
        flow_blocks=2,
        flow_heads=1,
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe) -> Path:
    folder = tmp_path_factory.mktemp("tiny_model")
    vae = VAEPart(tiny_recipe).vae
    vae.register_to_config(scaling_factor=0.5, shift_factor=0.0)
    vae.save_pretrained(folder / "vae")
    write_tokenizer(folder / "tokenizer")
    UNetPart(folder, tiny_recipe).export(folder)
    return folder
