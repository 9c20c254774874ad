"""Comparing recipes: every variant names fields that exist, and one is trained for the time it is given."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from freectl.mini.training import cascade, compare
from freectl.mini.training.cascade import CascadePart
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.recipe import RECIPES, SHIPPED, Recipe
from freectl.mini.training.trainer import TrainConfig
from freectl.mini.training.unet import UNetPart


@pytest.mark.parametrize(("kind", "size"), list(compare.VARIANTS))
def test_variants_change_what_there_is(kind: str, size: int) -> None:
    known = {field.name for field in (*fields(Recipe), *fields(TrainConfig))} | {"start", "text"}
    variants = compare.VARIANTS[kind, size]
    assert all(set(change) <= known for change in variants.values())
    assert len({tuple(sorted(change.items())) for change in variants.values()}) == len(variants)


def test_a_variant_trains_and_is_measured(tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(RECIPES, 128, tiny_recipe)
    monkeypatch.setattr(compare, "FIRST", 4)
    monkeypatch.setattr(compare, "COUNTS", {"unet": 6, "vae": 6})
    monkeypatch.setattr(compare, "_pictures_a_second", lambda part, config: 16.0)
    unet = compare.run("unet", {"batch": 2, "muon": True}, 0.25, tiny_model, 128)
    assert (unet["pictures"], unet["pictures_a_second"]) == (4, 16.0)
    assert all(unet[name] > 0 for name in compare.COLUMNS["unet"])
    vae = compare.run("vae", {"batch": 2}, 0.25, tiny_model, 128)
    assert 0 < vae["psnr_db"] < 20
    assert SHIPPED is not RECIPES[128]


def test_text_encoders_of_a_cascade_train_and_are_measured(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "WIDTHS", {"cascade-base": (8, 32)})
    monkeypatch.setattr(compare, "COUNTS", {"cascade-base": 4})
    monkeypatch.setattr(compare, "_pictures_a_second", lambda part, config: 16.0)
    found = {
        text: compare.run("cascade-base", {"batch": 2, "text": text}, 0.25, tiny_model, 64) for text in ("t5", "clip")
    }
    assert found["t5"]["parameters"] != found["clip"]["parameters"]
    for one in found.values():
        assert all(one[name] > 0 for name in compare.COLUMNS["cascade-base"])
    with pytest.raises(OSError, match="tokenizer"):
        CascadePart("cascade-base", tiny_model / "vae", text="clip")


def test_the_error_of_pixels_is_that_of_the_clean_pictures(tiny_model: Path) -> None:
    """As below, for the first stage of a cascade, whose pictures are means of the scenes' pixels."""
    part = CascadePart("cascade-base", tiny_model, (8, 32))
    torch.nn.init.zeros_(part.unet.conv_out.weight)
    torch.nn.init.zeros_(part.unet.conv_out.bias)
    found = compare.clean_errors(part, 4)
    _, pictures = scene_batch(batch_rng(-7, 0), 4, size=64)
    small = pictures.double().unflatten(-1, (16, 4)).unflatten(-3, (16, 4)).mean((-3, -1))
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(7)).double()
    for timestep in compare.TIMESTEPS:
        kept = float(part.scheduler.alphas_cumprod[timestep])
        error = (1 - kept) * small - (kept * (1 - kept)) ** 0.5 * noise
        assert found[f"t={timestep}"] == pytest.approx(float(error.square().mean()), abs=2e-4)


def test_the_error_is_that_of_the_clean_latents(tiny_model: Path, tiny_recipe: Recipe) -> None:
    """A network that answers no velocity says a x of its input x = a x0 + s n, so (s^2 x0 - a s n) is its error."""
    part = UNetPart(tiny_model, tiny_recipe)
    torch.nn.init.zeros_(part.unet.conv_out.weight)
    torch.nn.init.zeros_(part.unet.conv_out.bias)
    found = compare.clean_errors(part, 6)
    _, pictures = scene_batch(batch_rng(-7, 0), 6, size=128)
    latents = part.latents.encode(pictures).double()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7)).double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    for timestep in compare.TIMESTEPS:
        kept = float((1 - betas[: timestep + 1]).prod())
        error = (1 - kept) * latents - (kept * (1 - kept)) ** 0.5 * noise
        assert found[f"t={timestep}"] == pytest.approx(float(error.square().mean()), abs=2e-4)
