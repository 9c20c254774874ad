"""Models from label maps: planes and regions by loops, terms by their equations, what instance norm erases."""

import json

import numpy as np
import pytest
import torch
from gan_toy import FAST, TINY, batch_for
from PIL import Image
from test_gan_every_model import model, total
from torch import nn
from typer.testing import CliRunner

from gan_baselines.cli import app
from gan_baselines.errors import InputError
from gan_baselines.networks import CoarseGenerator, FineGenerator, Spade, SpadeGenerator
from gan_baselines.networks.labels import edges, label_planes, region_means, regions
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights


def squares(logits, target):
    return torch.stack([(part - target).pow(2).mean() for part in logits]).sum()


def some_maps():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 3, (2, 2, 6, 5))).float()


def test_planes_and_edges_by_loops():
    maps = some_maps()
    planes = label_planes(maps, 3, True)
    assert planes.shape == (2, 4, 6, 5)
    for n, y, x in np.ndindex(2, 6, 5):
        label, instance = int(maps[n, 0, y, x]), int(maps[n, 1, y, x])
        assert planes[n, :3, y, x].tolist() == [float(label == c) for c in range(3)]
        near = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        differs = any(int(maps[n, 1, a, b]) != instance for a, b in near if 0 <= a < 6 and 0 <= b < 5)
        assert bool(planes[n, 3, y, x]) == differs
    assert not edges(torch.ones(1, 1, 4, 4)).any()


def test_means_over_regions_by_loops():
    maps, values = some_maps(), torch.randn(2, 3, 6, 5)
    means = region_means(values, regions(maps))
    for n, y, x in np.ndindex(2, 6, 5):
        same = (maps[n] == maps[n, :, y, x][:, None, None]).all(0)
        torch.testing.assert_close(means[n, :, y, x], values[n][:, same].mean(1))


@pytest.mark.parametrize("name", ["pix2pixhd", "spade"])
def test_terms_are_the_game_of_pairs_and_feature_matching(name):
    sets = ["model.discriminator.scales=2", "model.lambda_vgg=2", "model.features.width=2", "model.features.stages=2"]
    net, x = model(name, *sets, "model.size=64" if name == "spade" else "model.fix_coarse=0"), batch_for(name, 64)
    torch.manual_seed(1)
    fakes, d, f = net.generate(x, 0), net.discriminators["D"], net.helpers["f"]
    planes = label_planes(x["A"], 3, True)
    real, made = d(torch.cat([planes, x["B"]], 1)), d(torch.cat([planes, fakes["B"]], 1))
    each = [(a - b).abs().mean() for a, b in zip(real.features, made.features, strict=True)]
    assert len(each) == 8
    activations = [[net_of(p, f) for p in (x["B"], fakes["B"])] for net_of in (first_of_stage(0), first_of_stage(2))]
    vgg = sum(w * (a - b).abs().mean() for w, (a, b) in zip((1 / 4, 1.0), activations, strict=True))
    if name == "pix2pixhd":
        expected = squares(made.logits, 1) + 10 * (4 / 4 / 2) * sum(each) + 2 * vgg
        on_d = 0.5 * (squares(real.logits, 1) + squares(made.logits, 0))
    else:
        kl = 0.5 * (fakes["mean"] ** 2 + fakes["log_variance"].exp() - 1 - fakes["log_variance"]).sum(1).mean()
        expected = -sum(part.mean() for part in made.logits) / 2 + 10 / 2 * sum(each) + 2 * vgg + 0.05 * kl
        on_d = (
            sum((1 - r).relu().mean() + (1 + m).relu().mean() for r, m in zip(real.logits, made.logits, strict=True))
            / 2
        )
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0)), on_d, rtol=1e-4, atol=1e-5)


def first_of_stage(relu):
    return lambda picture, f: f(picture)[relu]


def test_the_fine_part_adds_to_the_coarse_features_and_can_learn_alone():
    net = FineGenerator(4, 8, 1, 1, 1)
    x = torch.randn(1, 4, 32, 32)
    coarse = net.coarse.features(nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
    torch.testing.assert_close(net(x), net.up(net.down(x) + coarse))
    net(x, coarse_fixed=True).sum().backward()
    assert all(p.grad is None for p in net.coarse.parameters())
    assert all(p.grad is not None for p in net.down.parameters())
    assert isinstance(model("pix2pixhd", "model.fine=false").generators["G"], CoarseGenerator)


def test_instance_features_come_from_the_picture_or_from_what_was_seen():
    net, x = model("pix2pixhd").train(), batch_for("pix2pixhd")
    encoder = net.generators["E"]
    assert not encoder.filled.any()
    net.generate(x, 0)
    means = region_means(encoder(x["B"]), regions(x["A"]))
    for label in range(3):
        kept = encoder.bank[label, : int(encoder.filled[label])]
        seen = means.movedim(1, 3)[x["A"][:, 0] == label].unique(dim=0)
        assert len(seen)
        assert all((seen - one).abs().sum(1).min() < 1e-5 for one in kept)
    net.eval()
    torch.testing.assert_close(net.translate("AB", x["A"], x["B"]), net.generate(x, 0)["B"])
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [net.translate("AB", x["A"]) for _ in range(4)]
    assert any(not torch.equal(drawn[0], other) for other in drawn)


def test_spade_is_its_equation():
    spade, h, m = Spade(5, 3, 4, "instance"), torch.randn(2, 5, 8, 8) * 2 + 1, torch.rand(2, 3, 4, 4)
    shared = spade.shared(m.repeat_interleave(2, 2).repeat_interleave(2, 3))
    normal = (h - h.mean((2, 3), keepdim=True)) / (h.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(
        spade(h, m), normal * (1 + spade.gamma(shared)) + spade.beta(shared), atol=1e-5, rtol=1e-4
    )


def test_spade_keeps_a_label_that_fills_the_picture_and_instance_norm_erases_it():
    torch.manual_seed(0)
    # in double precision: each norm over a constant enlarges what rounding left of it
    maps = [label_planes(torch.full((1, 1, 32, 32), label).double(), 3, False) for label in range(3)]
    plain = CoarseGenerator(3, 4, 1, 0).double().eval()
    spade = SpadeGenerator(3, 4, 2, 4, "instance").double().eval()
    spread = {}
    for name, net in (("plain", plain), ("spade", spade)):
        made = torch.stack([net(m).detach() for m in maps])
        spread[name] = float((made - made[0]).abs().max())
    assert spread["plain"] < 1e-4  # one label for all pixels is a constant, which the first norm takes away
    assert spread["spade"] > 100 * spread["plain"]


@pytest.mark.parametrize(("ups", "size"), [(2, 16), (5, 64)])
def test_spade_sizes_and_blocks(ups, size):
    net = SpadeGenerator(3, 1, ups, 2, "batch")
    assert net(torch.zeros(1, 3, size, size)).shape == (1, 3, size, size)
    assert len(net.blocks) == ups + 2  # seven for 256 px
    styled = SpadeGenerator(3, 1, ups, 2, "instance", latent=4, size=size)
    assert styled(torch.zeros(1, 3, size, size), torch.zeros(1, 4)).shape == (1, 3, size, size)


def test_label_maps_are_translated_by_command(data, tmp_path):
    source = data / "labelled"
    train("pix2pixhd", source, tmp_path / "r", sets=[*FAST, *TINY["pix2pixhd"], "train.steps=1"])
    weights = tmp_path / "r" / "weights"
    assert (load_weights(weights).model.labels, load_weights(weights).model.instances) == (3, True)
    test = source / "test"
    base = ["translate", "--weights", weights, "--input", test / "labels", "--output", tmp_path / "o", "--threads", 1]

    def run(*more):
        return CliRunner().invoke(app, [str(a) for a in [*base, *more]])

    assert isinstance(run().exception, InputError)
    assert "--instances: found none" in str(run().exception)
    done = run("--instances", test / "instances", "--format", "json")
    assert json.loads(done.stdout)["pictures"] == 8
    assert Image.open(tmp_path / "o" / "3.png").size == (32, 32)
    wrong = tmp_path / "l.png"
    Image.new("L", (32, 32), 3).save(wrong)
    more = ["translate", "--weights", weights, "--input", wrong, "--output", tmp_path / "p", "--instances", wrong]
    assert "the label 3 in" in str(CliRunner().invoke(app, [str(a) for a in more]).exception)
    done = CliRunner().invoke(app, ["evaluate", "--weights", str(weights), "--data", str(source), "--limit", "3",
                                    "--threads", "1", "--format", "json"])  # fmt: skip
    report = json.loads(done.stdout)
    assert set(report["AB"]) == {"model", "mean"}  # a label map is no picture to compare with
    assert report["truth"]
