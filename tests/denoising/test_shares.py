"""Stored shares against counts: of the embedded model here, of published models in tests/benchmarks."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from toy import toy_unet

from freectl.denoising import cost, shares
from freectl.files.data import MODEL_DIR
from freectl.models.families import MINI
from freectl.models.families.unet import self_attention_keys

CONFIG = json.loads((MODEL_DIR / "unet" / "config.json").read_text())


def counted(unet, sites, size, tokens):
    with torch.device("meta"):
        network = type(unet).from_config(unet.config).eval()
        return shares.counted(network, sites, cost._meta_inputs(unet.config, size, tokens))


@pytest.fixture(scope="module")
def unet():
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(CONFIG)


@pytest.mark.parametrize(
    ("layers", "features", "size", "tokens"), [("last", "block", (16, 16), 77), ("first", "keys", (12, 20), 90)]
)
def test_stored_shares_of_the_embedded_model_are_what_is_counted(unet, layers, features, size, tokens):
    sites = MINI.structure_sites(unet, layers, features)
    part, whole = counted(unet, sites, size, tokens)
    assert shares.stored_share("UNet2DConditionModel", unet.config, sites, size, tokens) == part / whole


def test_a_run_of_the_embedded_model_counts_nothing(unet, monkeypatch):
    monkeypatch.setattr(cost, "_share", lambda *_: pytest.fail("a network was built to be counted"))
    assert 0 < cost.truncated_share(unet, MINI.structure_sites(unet), (16, 16), 77) < 1


def test_what_is_not_stored_is_none(unet):
    sites = MINI.structure_sites(unet)
    assert shares.stored_share("UNet2DConditionModel", unet.config, sites, (17, 16), 77) is None
    assert shares.stored_share("UNet2DConditionModel", unet.config, ["conv_in"], (16, 16), 77) is None
    assert shares.stored_share("Another", unet.config, sites, (16, 16), 77) is None


def test_entries_that_change_no_arithmetic_change_no_key():
    config = {"layers": 2, "sample_size": 8, "off": None, "_name_or_path": "a"}
    key = shares.architecture("A", config, ["a", "b"])
    assert shares.architecture("A", {"layers": 2, "sample_size": 16, "upcast_attention": True}, ("b",)) == key
    assert shares.architecture("A", {"layers": 3}, ["b"]) != key


def test_multiply_adds_are_a_polynomial_in_cells_and_tokens():
    unet = toy_unet()
    sites = self_attention_keys(unet, "up_blocks.1")
    entry = shares.coefficients(lambda height, width, tokens: counted(unet, sites, (height, width), tokens))
    part, whole = counted(unet, sites, (24, 8), 11)
    terms = shares._terms(24, 8, 11)
    assert [sum(a * b for a, b in zip(entry[name], terms, strict=True)) for name in entry] == [part, whole]
    with pytest.raises(ValueError, match="polynomial"):
        shares.coefficients(lambda height, width, tokens: (height**3, tokens))
