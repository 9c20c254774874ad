"""Networks: sizes against the published counts, receptive fields as measured, norms against each other."""

import pytest
import torch
from torch import nn

from gan_baselines.config import Discriminator, Norm
from gan_baselines.errors import InputError
from gan_baselines.networks import (
    DcganDiscriminator,
    DcganGenerator,
    PatchDiscriminator,
    ResnetGenerator,
    UnetGenerator,
    count_parameters,
    initialise,
    judge_pair,
)
from gan_baselines.networks.discriminators import patch_discriminator
from gan_baselines.networks.norms import norm_layer

BATCH, INSTANCE = Norm(kind="batch"), Norm(kind="instance")


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (lambda: ResnetGenerator(9, 64, INSTANCE), 11_378_179),
        (lambda: ResnetGenerator(6, 64, INSTANCE), 7_837_699),
        (lambda: ResnetGenerator(6, 32, INSTANCE, "resize"), 1_965_059),
        (lambda: UnetGenerator(8, 64, BATCH), 54_413_955),
        (lambda: UnetGenerator(7, 64, BATCH), 41_828_995),
        (lambda: UnetGenerator(6, 32, BATCH, dropout=True), 7_314_755),
        (lambda: PatchDiscriminator(3), 2_764_737),
        (lambda: PatchDiscriminator(3, conditional=True, norm=BATCH), 2_768_705),
        (lambda: PatchDiscriminator(1, conditional=True, norm=BATCH), 139_585),
        (lambda: PatchDiscriminator(5, conditional=True, norm=BATCH), 11_159_361),
        (lambda: PatchDiscriminator(0, conditional=True, norm=BATCH), 9_024),
        (DcganGenerator, 3_576_704),
        (DcganDiscriminator, 2_765_568),
    ],
)
def test_parameter_counts_equal_the_canonical_networks(network, count):
    with torch.device("meta"):  # shapes without drawing fifty million numbers
        assert count_parameters(network()) == count


@pytest.mark.parametrize(("n_layers", "field"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_receptive_field_measured_by_gradient(n_layers, field):
    net = PatchDiscriminator(n_layers, width=1, norm=Norm(kind="none"))
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, 0.1)  # no cancelling: each pixel that can count does
            nn.init.zeros_(part.bias)
    x = torch.ones(1, 3, 352, 352, requires_grad=True)
    logits = net(x).logits[0]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == field


def test_discriminator_shapes_features_and_scales():
    net = PatchDiscriminator(3, scales=2, conditional=True, width=4)
    judged = net(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64))
    assert [tuple(m.shape) for m in judged.logits] == [(2, 1, 6, 6), (2, 1, 2, 2)]
    assert [f.shape[1] for f in judged.features] == [4, 8, 16, 32] * 2
    assert PatchDiscriminator(3, width=1)(torch.zeros(1, 3, 256, 256)).logits[0].shape[-1] == 30


@pytest.mark.parametrize("n_layers", range(4))
@pytest.mark.parametrize("scales", [1, 2, 4])
@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_smallest_pictures_can_be_judged(n_layers, scales, kind):
    config = Discriminator(n_layers=n_layers, scales=scales, width=1)
    net = patch_discriminator(config, Norm(kind=kind)).train()
    judged = net(torch.randn(1, 3, config.smallest, config.smallest))
    assert len(judged.features) == config.features
    assert judged.logits[-1].numel() == (1 if n_layers else 4)


@pytest.mark.parametrize("up", ["deconv", "resize"])
@pytest.mark.parametrize("pad", ["reflect", "replicate", "zero"])
def test_resnet_keeps_size_and_range(up, pad):
    out = ResnetGenerator(1, 4, INSTANCE, up, pad=pad)(torch.randn(2, 3, 20, 32))
    assert out.shape == (2, 3, 20, 32)
    assert out.abs().max() <= 1


def test_unet_skips_carry_detail_and_encoder_decoder_has_none():
    x = torch.randn(1, 3, 32, 32)
    for skips in (True, False):
        net = initialise(UnetGenerator(4, 4, BATCH, skips=skips)).eval()
        inner = net.downs[-1].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        changed = (net(x) - net(x.flip(3))).abs().max()
        inner.remove()
        assert (changed > 0) == skips  # with the bottleneck blanked only skips tell inputs apart


def test_unet_dropout_is_noise_in_training_mode():
    net = UnetGenerator(6, 4, BATCH, dropout=True)
    x = torch.randn(2, 3, 64, 64)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("downs", "layers"), [(4, []), (5, []), (6, [1]), (7, [1, 2]), (8, [1, 2, 3]), (9, [1, 2, 3, 4])]
)
def test_unet_dropout_follows_the_innermost_layer(downs, layers):
    with torch.device("meta"):
        ups = UnetGenerator(downs, 1, BATCH, dropout=True).ups
    noisy = [index for index, up in enumerate(ups) if any(isinstance(part, nn.Dropout) for part in up)]
    assert noisy == layers  # of 8 x width channels, downs - 5 of them


@pytest.mark.parametrize("size", [8, 32, 64])
def test_dcgan_sizes(size):
    picture = DcganGenerator(size, 10, 4)(torch.randn(2, 10))
    assert picture.shape == (2, 3, size, size)
    judged = DcganDiscriminator(size, 4)(picture)
    assert judged.logits[0].shape == (2, 1, 1, 1)
    assert judged.features[-1].shape[-1] == 4


def test_group_norm_of_one_group_a_channel_equals_instance_norm():
    x = torch.randn(2, 8, 6, 6)
    one_each = norm_layer(Norm(kind="group", channels_per_group=1), 8)
    torch.testing.assert_close(one_each(x), norm_layer(INSTANCE, 8)(x), atol=1e-5, rtol=1e-5)


def test_group_norm_defaults_and_indivisible():
    assert norm_layer(Norm(kind="group"), 16).num_groups == 16
    assert norm_layer(Norm(kind="group"), 64).num_groups == 32
    with pytest.raises(InputError, match=r"model\.norm\.groups: found 6 groups on a layer of 64 channels; allowed"):
        norm_layer(Norm(kind="group", groups=6), 64)
    with pytest.raises(InputError, match="channels_per_group"):
        norm_layer(Norm(kind="group", channels_per_group=3), 64)


def test_layer_and_weight_norm_are_what_they_say():
    x = torch.randn(2, 8, 6, 6) * 3 + 1
    layer = norm_layer(Norm(kind="layer"), 8)
    torch.testing.assert_close(layer(x), nn.functional.layer_norm(x, x.shape[1:]), atol=1e-5, rtol=1e-5)
    torch.manual_seed(0)
    net = initialise(PatchDiscriminator(2, width=4, norm=Norm(kind="weight")))
    conv = net.scales[0][1][0]
    lengths = conv.weight.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, conv.parametrizations.weight.original0.detach().flatten())
    drawn = conv.parametrizations.weight.original1.detach()
    torch.testing.assert_close(
        conv.weight.detach() / lengths.view(-1, 1, 1, 1), drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    )
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.1)


def test_spectral_norm_bounds_the_largest_singular_value():
    net = PatchDiscriminator(2, width=4, norm=Norm(kind="spectral"))
    for _ in range(30):
        net(torch.randn(1, 3, 32, 32))
    weight = net.eval().scales[0][1][0].weight.detach().flatten(1)
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=0.05)


def test_initialisation_follows_the_paper():
    torch.manual_seed(0)
    net = initialise(UnetGenerator(5, 16, BATCH))
    weights = torch.cat([m.weight.detach().flatten() for m in net.modules() if isinstance(m, nn.Conv2d)])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)
    scales = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(scales.mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("kind", "calls"), [("instance", 1), ("group", 1), ("none", 1), ("batch", 2)])
def test_real_and_fake_share_a_call_where_that_is_exact(kind, calls):
    net = PatchDiscriminator(2, width=4, norm=Norm(kind=kind), conditional=True)
    real, fake, condition = torch.randn(3, 2, 3, 32, 32).unbind()
    seen = []
    net.register_forward_hook(lambda *_: seen.append(1))
    together = judge_pair(net, real, fake, condition)
    assert len(seen) == calls
    torch.testing.assert_close(together[0][0], net(real, condition).logits[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1][0], net(fake, condition).logits[0], atol=1e-5, rtol=1e-5)
