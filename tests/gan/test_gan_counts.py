"""Networks at their published sizes: parameters as counted in the published codes, in millions.

StackGAN's generator is counted there with a layer of 0.26 on its text encoder's output.
"""

import pytest
import torch

from gan_baselines.config import Features
from gan_baselines.models import build
from gan_baselines.networks import FeatureNet, InstanceEncoder, count_parameters
from gan_baselines.settings import resolve

MAPS = ["model.labels=35", "model.instances=true"]


@pytest.mark.parametrize(
    ("name", "sets", "network", "millions"),
    [
        ("discogan", [], "generators.AB", 5.51),
        ("discogan", [], "discriminators.A", 2.77),
        ("munit", [], "generators.A", 15.03),
        ("munit", [], "generators.A.style", 2.77),
        ("munit", [], "generators.A.content", 5.39),
        ("munit", [], "generators.A.decode.mlp", 1.12),
        ("bicyclegan", [], "generators.G", 54.8),
        ("bicyclegan", [], "generators.E", 2.59),
        ("bicyclegan", ["model.encoder_blocks=3"], "generators.E", 1.34),
        ("pix2pixhd", MAPS, "generators.G", 182.9),
        ("pix2pixhd", [*MAPS, "model.fine=false"], "generators.G", 182.5),
        ("pix2pixhd", MAPS, "discriminators.D", 5.6),
        ("spade", ["model.labels=183", "model.instances=true"], "generators.G", 97.5),
        ("spade", MAPS, "generators.G", 92.5),
        ("spade", ["model.labels=183", "model.instances=true"], "discriminators.D", 5.9),
        ("stackgan", [], "generators.G", 20.0 - 0.26),
        ("stackgan", [], "discriminators.D", 12.4),
        ("progan", ["model.widths=[512,512,512,512,256,128,64,32,16]"], "generators.G", 23.08),
        ("progan", ["model.widths=[512,512,512,512,256,128,64,32,16]"], "discriminators.D", 23.09),
        ("progan", ["model.widths=[512,512,512,512,256]"], "generators.G", 22.49),
    ],
)
def test_published_sizes(name, sets, network, millions):
    with torch.device("meta"):  # shapes without drawing the numbers
        found = build(resolve(name, None, sets).model)
        assert count_parameters(found.get_submodule(network)) / 1e6 == pytest.approx(millions, rel=0.006)


def test_vgg_has_torchvisions_names_and_sizes():
    with torch.device("meta"):
        for kind, millions in (("vgg16", 14.71), ("vgg19", 20.02)):
            net = FeatureNet(Features(kind=kind, stages=5))
            assert count_parameters(net) / 1e6 == pytest.approx(millions, rel=1e-3)
        names = set(net.state_dict())
        assert {"features.0.weight", "features.34.bias"} <= names  # the first and the last convolution of vgg19
        assert count_parameters(InstanceEncoder(16, 4, 3, 35, 1)) / 1e6 == pytest.approx(0.79, rel=0.006)
