"""Stored shares of published networks against counts on the meta device; about a minute a network.

pytest tests/benchmarks/test_stored_shares.py -m benchmark -n 0
"""

import pytest
import torch
from diffusers import UNet2DConditionModel
from toy import true_unet_config

from freectl.denoising import cost, shares
from freectl.models import families

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(0)]


@pytest.mark.parametrize(
    ("name", "size"), [("sd1", (64, 64)), ("sd1", (64, 96)), ("sd2", (96, 96)), ("sdxl", (128, 128))]
)
@pytest.mark.parametrize("layers", ["all", "first"])
def test_stored_shares_are_what_is_counted(name, size, layers):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_unet_config(name, full=True)).eval()
        sites = families.of(unet).structure_sites(unet, layers)
        part, whole = shares.counted(unet, sites, cost._meta_inputs(unet.config, size, 77))
    assert shares.stored_share("UNet2DConditionModel", unet.config, sites, size, 77) == part / whole
