"""What makes a step cheap must not change it: our step beside the plain one, our convolutions beside the library's."""

import copy

import pytest
import torch
from accelerate import Accelerator
from gan_toy import FAST, TINY
from torch import nn

from gan_baselines.benchmark.__main__ import Fixed
from gan_baselines.benchmark.plain import PlainStep, Savings
from gan_baselines.models import build
from gan_baselines.networks import convolutions
from gan_baselines.networks.convolutions import Conv2d, ConvTranspose2d
from gan_baselines.networks.norms import InstanceNorm2d
from gan_baselines.settings import resolve
from gan_baselines.training.trainer import Trainer


@pytest.fixture
def all_coarse(monkeypatch):
    monkeypatch.setattr(convolutions, "LEAST_WEIGHTS", 0)
    monkeypatch.setattr(convolutions, "MOST_POSITIONS", 10**6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("own", "kernel", "stride", "padding", "extra"),
    [
        (Conv2d, 4, 2, 1, 0),
        (Conv2d, 3, 1, 0, 0),
        (Conv2d, 7, 1, 3, 0),
        (ConvTranspose2d, 4, 2, 1, 0),
        (ConvTranspose2d, 3, 2, 1, 1),
        (ConvTranspose2d, 4, 1, 0, 0),
    ],
)
def test_one_product_equals_the_librarys_convolution(all_coarse, own, kernel, stride, padding, extra, bias):
    more = {"output_padding": extra} if own is ConvTranspose2d else {}
    coarse = own(3, 5, kernel, stride, padding, bias=bias, **more).double()
    library = own.__base__(3, 5, kernel, stride, padding, bias=bias, **more).double()
    library.load_state_dict(coarse.state_dict())
    inputs = [torch.randn(2, 3, 8, 10, dtype=torch.float64, requires_grad=True)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    outputs = [net(x) for net, x in zip((coarse, library), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    for y in outputs:
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for mine, theirs in zip(coarse.parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_fine_maps_and_few_weights_stay_with_the_library(monkeypatch):
    called = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: called.append(x.shape))
    wide = Conv2d(64, 128, 4, 2, 1)
    wide(torch.zeros(1, 64, 24, 24))
    Conv2d(8, 8, 4, 2, 1)(torch.zeros(1, 8, 4, 4))
    assert len(called) == 2
    wide(torch.zeros(1, 64, 16, 16))
    wide(torch.zeros(8, 64, 8, 8))
    assert len(called) == 2


def test_instance_norm_equals_the_librarys():
    x = torch.randn(2, 6, 9, 5, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    outputs = InstanceNorm2d(6)(x), nn.InstanceNorm2d(6)(y)
    torch.testing.assert_close(*outputs)
    for out in outputs:
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
@pytest.mark.parametrize("batch", [1, 2])
def test_our_step_has_the_plain_steps_gradients(all_coarse, name, batch):
    sets = [*FAST, *TINY[name], "model.discriminator.n_layers=2", f"train.batch_size={batch}"]
    config = resolve(name, None, sets)
    torch.manual_seed(0)
    network, pictures = build(config.model), Fixed(config, 32)
    plain = copy.deepcopy(network)
    torch.manual_seed(1)  # dropout is drawn alike
    PlainStep(plain, Savings())(pictures.batch)
    torch.manual_seed(1)
    Trainer(network, pictures, config, Accelerator(cpu=True)).advance()
    for player in ("generators", "discriminators"):
        nets = getattr(network, player), getattr(plain, player)
        ours, theirs = ([weight.grad for weight in net.parameters()] for net in nets)
        # a bias before a norm has no gradient but rounding: the largest gradient is the measure
        largest = max(float(grad.abs().max()) for grad in theirs)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5 * largest, rtol=1e-3)
