"""Style transfer: statistics and energies against loops, published layers against other libraries, known limits."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from gan_toy import FAST, TINY, batch_for
from safetensors.torch import save_file
from test_gan_every_model import model, total
from torch import nn
from typer.testing import CliRunner

from gan_baselines import gatys, hub
from gan_baselines.cli import app
from gan_baselines.config import Features
from gan_baselines.errors import InputError
from gan_baselines.feature_weights import feature_network, features_of
from gan_baselines.losses import gram, moments
from gan_baselines.networks import FeatureNet, MirrorDecoder, adain
from gan_baselines.settings import resolve
from gan_baselines.training.run import Run, train
from gan_baselines.weights import load_weights, save_weights

SMALL = Features(width=3, stages=2, pool="mean")


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return FeatureNet(SMALL).requires_grad_(False)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A random VGG-19 of torchvision without its classifier, and its file."""
    with torch.device("meta"):
        whole = torchvision.models.vgg19(init_weights=False).features
    whole, rng = whole.to_empty(device="cpu").eval().requires_grad_(False), torch.Generator().manual_seed(2)
    for part in whole.parameters():
        part.normal_(0, (2 / part[0].numel()) ** 0.5 if part.dim() > 1 else 0.1, generator=rng)
    file = tmp_path_factory.mktemp("vgg") / "own.safetensors"
    save_file({f"features.{name}": tensor for name, tensor in whole.state_dict().items()}, file)
    return whole, file


def test_gram_and_moments_are_the_loops_of_their_papers():
    f = noise(2, 3, 4, 5)
    x = f.double().numpy()
    for n in range(2):
        for i in range(3):
            mean = sum(x[n, i, y, z] for y in range(4) for z in range(5)) / 20
            square = sum((x[n, i, y, z] - mean) ** 2 for y in range(4) for z in range(5)) / 20
            assert moments(f)[0][n, i].item() == pytest.approx(mean, abs=1e-6)
            assert moments(f)[1][n, i].item() == pytest.approx((square + 1e-5) ** 0.5, abs=1e-6)
            for j in range(3):
                both = sum(x[n, i, y, z] * x[n, j, y, z] for y in range(4) for z in range(5)) / 20
                assert gram(f)[n, i, j].item() == pytest.approx(both, abs=1e-6)


def test_adain_is_the_loop_and_gives_the_style_its_statistics():
    content, style = noise(1, 3, 4, 5), 3 + 2 * noise(1, 3, 7, 6, seed=1)
    mean, deviation = moments(style)
    made = adain(content, deviation, mean)
    x, s = content.double().numpy()[0], style.double().numpy()[0]
    for i in range(3):
        own, other = (np.sqrt(part[i].var() + 1e-5) for part in (x, s))
        wanted = other * (x[i] - x[i].mean()) / own + s[i].mean()
        np.testing.assert_allclose(made[0, i].numpy(), wanted, atol=1e-5)
    for got, want in zip(moments(made), (mean, deviation), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_published_layers_are_torchvisions_activations(vgg):
    published = {"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu4_1": 20, "relu4_2": 22,
                 "relu5_1": 29}  # fmt: skip
    whole, file = vgg
    own, x = feature_network(file, pool="max"), noise(1, 3, 32, 32)
    seen, found = ((x + 1) / 2 - own.mean) / own.std, own(x)
    for index, layer in enumerate(whole):
        seen = layer(seen)
        for name in (name for name, place in published.items() if place == index):
            assert torch.equal(found[own.place(name)], seen), name
    assert torch.equal(own(x, 3)[-1], found[2])


def test_vgg_names_are_timms_and_pooling_may_average(vgg):
    averaging = FeatureNet(SMALL)
    assert sum(isinstance(part, nn.AvgPool2d) for part in averaging.features) == 2
    for kind in ("vgg16", "vgg19"):
        with torch.device("meta"):
            theirs = timm.create_model(kind).state_dict()
            ours = FeatureNet(Features(kind=kind, stages=5)).state_dict()
        assert {name: part.shape for name, part in ours.items()} == {
            name: part.shape for name, part in theirs.items() if name.startswith("features.")
        }


def test_a_feature_network_comes_from_a_hub_id_a_file_or_a_folder(vgg, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(vgg[1]) if "/" in name else file)
    assert features_of("timm/vgg19.tv_in1k") == (Features(kind="vgg19", stages=5), vgg[1])
    config = resolve("adain", None, TINY["adain"]).model
    net = model("adain")
    save_weights(tmp_path / "w", config, net.generators, helpers={"f": net.helpers["f"]}, translators=["AB"])
    found = feature_network(tmp_path / "w")
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), net.helpers["f"].parameters(), strict=True))
    assert torch.equal(load_weights(tmp_path / "w").network.code(noise(1, 3, 8, 8)), net.code(noise(1, 3, 8, 8)))


def test_bad_features_are_named(vgg, tmp_path, monkeypatch):
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(vgg[1].read_bytes()[:1000])
    for name, words in (("other", "without the layers"), ("torn", "damaged"), ("none", "missing")):
        with pytest.raises(InputError, match=words):
            features_of(tmp_path / f"{name}.safetensors")

    def refuse(*_):
        raise OSError("no such repository\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(InputError, match=r"some/net', which could not be fetched \(no such repository\)"):
        hub.tensors_file("some/net", "--x")
    with pytest.raises(InputError, match="relu9_9"):
        FeatureNet(SMALL).place("relu9_9")
    with pytest.raises(InputError, match="weights of a pix2pix"):
        features_of("pix2pix-noto-fluent")


def test_energy_is_the_papers_sum_over_layers(net):
    content, style, x = noise(1, 3, 12, 9), noise(1, 3, 8, 16, seed=1), noise(1, 3, 12, 9, seed=2)
    own, other, here = ([h.double().numpy()[0] for h in net(part)] for part in (content, style, x))
    scales = [2 / (a.mean() + b.mean()) for a, b in zip(own, other, strict=True)]
    wanted = ((here[3] - own[3]) ** 2).mean() * scales[3] ** 2
    for place in (0, 2):
        count = len(own[place])
        for i in range(count):
            for j in range(count):
                a = (here[place][i] * here[place][j]).mean() * scales[place] ** 2
                b = (other[place][i] * other[place][j]).mean() * scales[place] ** 2
                wanted += 0.5 * 1e3 / count**2 * (a - b) ** 2 / count**2
    assert gatys.Energy(net, content, style, 0.5)(x).item() == pytest.approx(wanted, rel=1e-4)


def test_optimising_lowers_the_energy_and_repeats(net):
    content, style = noise(3, 20, 13), noise(3, 9, 24, seed=1) * 0.3
    runs = [gatys.optimised(content, style, net, evaluations=count) for count in (3, 12, 12)]
    energy = gatys.Energy(net, content[None], style[None])
    values = [energy(part[None]).item() for part in (content, *runs)]
    assert values[0] > values[1] > values[2]
    assert torch.equal(runs[1], runs[2])
    assert runs[0].shape == content.shape


def test_a_picture_styled_by_itself_is_itself(net):
    x = noise(3, 17, 10)
    torch.testing.assert_close(gatys.optimised(x, x, net, evaluations=5), x)
    torch.testing.assert_close(gatys.optimised(x, noise(3, 8, 8, seed=5), net, weight=0.0, evaluations=5), x)
    styled, own = model("adain").eval(), noise(1, 3, 16, 16)
    with torch.no_grad():
        same = styled.translate("AB", own, styled.style_of("AB", own))
        decoded = styled.generators["decoder"](styled.code(own)).clamp(-1, 1)
    torch.testing.assert_close(same, decoded, atol=1e-5, rtol=1e-5)


def test_larger_pictures_are_made_in_two_scales(net, monkeypatch):
    monkeypatch.setattr(gatys, "FIRST_SIDE", 16)
    seen = []
    descended = gatys._descended
    monkeypatch.setattr(
        gatys, "_descended", lambda c, start, s, n, w, count, each: seen.append((tuple(c.shape[-2:]), count))
        or descended(c, start, s, n, w, count, each),
    )  # fmt: skip
    ticks: list[int] = []
    sets: dict = {"evaluations": 5, "after_each": lambda: ticks.append(len(seen))}
    made = gatys.optimised(noise(3, 40, 20), noise(3, 30, 40, seed=1), net, **sets)
    assert seen == [((16, 8), 5), ((40, 20), 2)]
    assert ticks == [1] * 5 + [2] * 2
    assert gatys.planned(40, 5) == 7
    assert made.shape == (3, 40, 20)
    assert gatys.optimised(noise(3, 2, 70), noise(3, 1, 1, seed=1), net, evaluations=2).shape == (3, 2, 70)


def test_mixed_styles_mix_the_statistics():
    net, x, style = model("adain").eval(), noise(1, 3, 16, 16), noise(1, 3, 8, 24, seed=3)
    own, other = (net.style_of("AB", part) for part in (x, style))
    with torch.no_grad():
        content = net.code(x)
        full = adain(content, *other.chunk(2, 1))
        for alpha in (0.0, 0.3, 1.0):  # the paper's blend of features, its equation 14
            wanted = net.generators["decoder"]((1 - alpha) * content + alpha * full).clamp(-1, 1)
            torch.testing.assert_close(net.translate("AB", x, (1 - alpha) * own + alpha * other), wanted)


def test_adain_terms_are_the_papers():
    net, x = model("adain", "model.lambda_style=3"), batch_for("adain")
    fakes = net.generate(x, 0)
    f = net.helpers["f"]
    made, wanted = f(fakes["B"]), f(x["B"])
    apart = sum(
        (a - b).pow(2).mean() for i in (0, 2) for a, b in zip(moments(made[i]), moments(wanted[i]), strict=True)
    )
    target = adain(f(x["A"])[2], *reversed(moments(wanted[2])))
    expected = (made[2] - target).pow(2).mean() + 3 * apart
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected)


def test_johnson_terms_are_the_papers():
    sets = ["model.lambda_content=2", "model.lambda_style=3", "model.lambda_variation=0.5"]
    net, x = model("johnson", *sets), batch_for("johnson")
    fakes = net.generate(x, 0)
    made, content, style = (net.helpers["f"](part) for part in (fakes["B"], x["A"], x["B"]))
    expected = 2 * (made[3] - content[3]).pow(2).mean()
    for place in (1, 3):
        n, c, h, w = made[place].shape
        flat = [part[place].reshape(n, c, h * w) for part in (made, style)]
        grams = [part @ part.mT / (c * h * w) for part in flat]
        expected = expected + 3 * (grams[0] - grams[1]).pow(2).sum((1, 2)).mean()
    y = fakes["B"]
    expected = expected + 0.5 * ((y[..., 1:, :] - y[..., :-1, :]).pow(2).mean() + y.diff(dim=-1).pow(2).mean())
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected)


@pytest.mark.parametrize("scale", [True, False])
def test_scaled_features_make_the_terms_blind_to_how_large_a_layer_is(scale):
    net, x = model("johnson", f"model.scale_features={scale}"), batch_for("johnson")
    fakes = net.generate(x, 0)
    before = net.generator_terms(x, fakes, 0)
    features = net.helpers["f"].forward
    net.helpers["f"].forward = lambda *given: [layer * 10 ** (1 + k) for k, layer in enumerate(features(*given))]
    after = net.generator_terms(x, fakes, 0)
    same = [torch.allclose(before[name], after[name], rtol=1e-4) for name in ("content", "style")]
    assert same == [scale, scale]


def test_the_decoder_mirrors_the_features():
    net = FeatureNet(Features(kind="vgg19", stages=5))
    with torch.device("meta"):
        decoder = MirrorDecoder(FeatureNet(Features(kind="vgg19", stages=5)), "relu4_1")
    convs = [part for part in decoder.layers if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convs] == [256, 256, 256, 256, 128, 128, 64, 64, 3]
    assert sum(isinstance(part, nn.Upsample) for part in decoder.layers) == 3
    assert sum(part.numel() for part in decoder.parameters()) == 3_505_219  # 3.51 M, as the published one
    assert net.place("relu4_1") == 8


def test_content_and_style_lie_where_the_command_says(data, tmp_path):
    sets = [part for item in [*FAST, *TINY["adain"], "train.steps=2"] for part in ("--set", item)]
    asked = ["train", "adain", "--data", str(data / "pictures"), "--style", str(data / "trainB"), *sets]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "a")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    config = resolve("johnson", None, [*FAST, *TINY["johnson"], "train.steps=1"])
    one = config.model_copy(update={"data": config.data.model_copy(update={"style": str(data / "trainB" / "3.png")})})
    run = Run(one, data / "pictures", tmp_path / "b", False)
    batch = run.batches.at(0)
    assert (len(run.batches.sets["A"]), len(run.batches.sets["B"])) == (8, 1)
    flips = [batch["B"][0], batch["B"][0].flip(-1)]
    assert all(any(torch.equal(part, flip) for flip in flips) for part in batch["B"])


def test_bad_styles_are_one_line(data, tmp_path):
    sets = [*FAST, *TINY["adain"], "train.steps=1"]
    with pytest.raises(InputError, match=r"--style: found .* for pix2pix"):
        train("pix2pix", data, tmp_path / "a", sets=[*FAST, *TINY["pix2pix"]], style=data / "trainB")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--style: found no picture"):
        train("adain", data / "pictures", tmp_path / "a", sets=sets, style=tmp_path / "empty")
    with pytest.raises(InputError, match="missing"):
        train("adain", data / "pictures", tmp_path / "a", sets=sets, style=tmp_path / "none.png")
    with pytest.raises(InputError, match="relu1_9"):
        train("adain", data, tmp_path / "a", sets=[*sets, "model.layer=relu1_9"])
    assert not (tmp_path / "a").exists()
