"""BicycleGAN, CVAE-GAN, InfoGAN: terms against their equations, gradients where they belong, known limits."""

from math import log, pi

import numpy as np
import pytest
import torch
from gan_toy import FAST, TINY, batch_for
from PIL import Image
from test_gan_every_model import model, total
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn.functional import cross_entropy, logsigmoid
from typer.testing import CliRunner

from gan_baselines.cli import app
from gan_baselines.errors import InputError
from gan_baselines.inference import sample, translate
from gan_baselines.models.infogan import latent
from gan_baselines.networks import UnetGenerator
from gan_baselines.networks.norms import Norm
from gan_baselines.settings import resolve
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights


def squares(logits, target):
    return torch.stack([(part - target).pow(2).mean() for part in logits]).sum()


def test_latent_planes_enter_where_they_are_asked_for():
    for everywhere, layers in ((False, [5, 4, 8]), (True, [5, 6, 10])):
        net = UnetGenerator(3, 4, Norm(kind="instance"), latent=2, everywhere=everywhere)
        assert [down[-1 if level in (0, 2) else 1].in_channels for level, down in enumerate(net.downs)] == layers
        x = torch.randn(1, 3, 16, 16)
        made = [net(x, torch.full((1, 2), value)) for value in (0.0, 1.0)]
        assert not torch.allclose(*made)


def test_bicyclegan_terms_are_its_two_branches():
    net, x = model("bicyclegan", "model.generator.dropout=false", "model.conditional=true"), batch_for("bicyclegan")
    g, e = net.generators["G"], net.generators["E"]
    first, second, a = x["B"][:1], x["B"][1:], x["A"][:1]
    torch.manual_seed(2)
    fakes = net.generate(x, 0)
    torch.manual_seed(2)
    mean, log_variance = e(first)
    encoded = g(a, mean + torch.randn_like(mean) * log_variance.exp().sqrt())
    z = torch.randn(1, 3)
    drawn = g(a, z)
    d_b, d_r = net.discriminators["B"], net.discriminators["R"]
    kl = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    expected = squares(d_b(encoded, a).logits, 1) + squares(d_r(drawn, a).logits, 1) + 0.01 * kl
    expected += 10 * (encoded - first).abs().mean() + 0.5 * (e(drawn).mean - z).abs().mean()
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected)
    on_d = squares(d_b(first, a).logits, 1) + squares(d_b(encoded, a).logits, 0)
    on_d += squares(d_r(second, x["A"][1:]).logits, 1) + squares(d_r(drawn, x["A"][1:]).logits, 0)
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0)), on_d)


@pytest.mark.parametrize(("sets", "moves"), [([], False), (["model.encoded=false"], True)])
def test_the_latent_term_moves_the_encoder_only_where_nothing_else_does(sets, moves):
    net, x = model("bicyclegan", *sets), batch_for("bicyclegan")
    net.generator_terms(x, net.generate(x, 0), 0)["latent"].backward()
    assert any(p.grad is not None for p in net.generators["E"].parameters()) == moves
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.generators["G"].parameters())


def test_bicyclegan_without_a_branch():
    x = batch_for("bicyclegan")
    for off, kept, judges in (("drawn", {"G_encoded", "l1", "kl"}, ["B"]), ("encoded", {"G_drawn", "latent"}, ["R"])):
        net = model("bicyclegan", f"model.{off}=false")
        assert set(net.generator_terms(x, net.generate(x, 0), 0)) == kept
        assert list(net.discriminators) == judges
    with pytest.raises(InputError, match="leaves no branch"):
        resolve("bicyclegan", None, ["model.drawn=false", "model.encoded=false"])


def test_a_style_is_the_encoders_mean(data, tmp_path):
    train("bicyclegan", data, tmp_path / "r", sets=[*FAST, *TINY["bicyclegan"], "train.steps=1", "train.lr=0.01"])
    net, x = load_weights(tmp_path / "r" / "weights"), batch_for("bicyclegan")
    style = net.network.style_of("AB", x["B"][:1])
    torch.testing.assert_close(style, net.generators["E"](x["B"][:1]).mean)
    way = net.translators["AB"]
    assert torch.equal(*(translate(way, x["A"][0], 16, seed=seed, style=style, dropout=False) for seed in (0, 1)))
    assert not torch.equal(*(translate(way, x["A"][0], 16, seed=seed, dropout=False) for seed in (0, 1)))


def test_cvaegan_terms_are_equations_3_to_9():
    net, x = model("cvaegan").eval(), batch_for("cvaegan", count=4)
    real, labels = x["picture"], x["class"]
    c = torch.eye(2)[labels]
    torch.manual_seed(4)
    fakes = net.generate(x, 0)
    torch.manual_seed(4)
    planes = c[:, :, None, None] * torch.ones(1, 1, 32, 32)
    mean, log_variance = net.generators["E"](torch.cat([real, planes], 1)).logits[0][:, :, 0, 0].chunk(2, 1)
    z = torch.randn_like(mean)
    code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    g = net.generators["G"]
    same, y = g(torch.cat([code, c], 1)), g(torch.cat([z, c], 1))
    d, k = net.discriminators["D"], net.discriminators["C"]
    expected = 3 * kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    for f in (lambda p: p, lambda p: d(p).features[-1], lambda p: k(p).features[-1]):
        expected += sum(0.5 * (f(real)[i] - f(same)[i]).pow(2).sum() for i in range(4)) / 4
    f_d, f_c = d(real).features[-1].mean(0) - d(y).features[-1].mean(0), 0.0
    for own in range(2):
        f_c += (
            0.5 * (k(real).features[-1][labels == own].mean(0) - k(y).features[-1][labels == own].mean(0)).pow(2).sum()
        )
    expected += 1e-3 * 0.5 * f_d.pow(2).sum() + 1e-3 * f_c
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected, rtol=1e-4, atol=1e-4)
    on_d = -logsigmoid(d(real).logits[0]).mean() - logsigmoid(-d(y).logits[0]).mean()
    on_d += cross_entropy(k(real).logits[0].flatten(1), labels)
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0)), on_d)


def test_cvaegan_samples_need_a_class_and_keep_it_on_a_line(data, tmp_path):
    train("cvaegan", data / "classed", tmp_path / "r", sets=[*FAST, *TINY["cvaegan"], "train.steps=1"])
    net = load_weights(tmp_path / "r" / "weights")
    assert net.model.classes == ("even", "odd")
    for asked, message in (((None, None, None), "--class: found nothing"), (("fox", None, None), "found 'fox'"),
                           (("odd", "words", None), "--prompt")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            net.network.condition(*asked)
    odd = net.network.condition("odd", None, None)
    assert odd.tolist() == [0, 1]
    line = list(sample(net.noise_generator, 3, 7, condition=odd, line=True))
    ends = [next(iter(sample(net.noise_generator, 1, seed, condition=odd))) for seed in (7, 8)]
    torch.testing.assert_close(line[0], ends[0])
    torch.testing.assert_close(line[2], ends[1])
    even = next(iter(sample(net.noise_generator, 1, 7, condition=net.network.condition("even", None, None))))
    assert not torch.allclose(even, ends[0])


def test_sample_takes_classes_codes_and_lines_by_command(data, tmp_path):
    for name, layout in (("cvaegan", "classed"), ("infogan", "pictures")):
        train(name, data / layout, tmp_path / name, sets=[*FAST, *TINY[name], "train.steps=1"])

    def run(name, out, *more):
        base = ["sample", "--weights", tmp_path / name / "weights", "--output", tmp_path / out, "--threads", 1]
        return CliRunner().invoke(app, [str(part) for part in [*base, *more]])

    assert "--class: found nothing; allowed: even, odd" in str(run("cvaegan", "x").exception)
    assert not (tmp_path / "x").exists()
    assert run("cvaegan", "line", "--class", "odd", "--interpolate", "--count", 3, "--seed", 4).exit_code == 0
    assert run("cvaegan", "end", "--class", "odd", "--count", 1, "--seed", 5).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "line").iterdir()) == ["000004.png", "000005.png", "000006.png"]
    ends = [np.asarray(Image.open(tmp_path / p)).astype(int) for p in ("line/000006.png", "end/000005.png")]
    assert np.abs(ends[0] - ends[1]).max() <= 1  # the line ends in the picture of the next seed
    assert run("infogan", "codes", "--class", 1, "--code", "-1,0.5", "--count", 2).exit_code == 0
    for more, message in ((["--code", "1,x"], "--code: found '1,x'"), (["--prompt", "a"], "--prompt")):
        assert message in str(run("infogan", "y", *more).exception)


def test_a_model_of_several_parts_is_stored_at_half_precision(data, tmp_path):
    train("bicyclegan", data, tmp_path / "r", sets=[*FAST, *TINY["bicyclegan"], "train.steps=1"])
    options = ["convert", "--input", tmp_path / "r" / "weights", "--out", tmp_path / "h", "--dtype", "fp16"]
    assert CliRunner().invoke(app, [str(part) for part in options]).exit_code == 0
    x, style = batch_for("bicyclegan")["A"][:1], torch.randn(1, 3)
    ways = [load_weights(folder).translators["AB"] for folder in (tmp_path / "r" / "weights", tmp_path / "h")]
    assert (ways[0](x, style) - ways[1](x, style)).abs().max() < 0.01


def test_infogan_draws_evenly_distributed_codes():
    config = resolve("infogan", None, ["model.noise=2"]).model
    numbers = latent(torch.randn(20000, 14, generator=torch.Generator().manual_seed(0)), config)
    noise, category, number = numbers.split([2, 10, 2], 1)
    assert category.sum(1).eq(1).all()
    assert (category.mean(0) - 0.1).abs().max() < 0.01
    for part in (noise, number):  # mean 0, variance 1/3, nothing outside
        assert part.abs().max() <= 1
        assert (part.mean(0).abs().max(), (part.var(0) - 1 / 3).abs().max()) < (0.02, 0.01)


def test_infogan_bound_by_the_distributions_and_zero_without_knowledge():
    net, x = model("infogan").eval(), batch_for("infogan", count=4)
    fakes = net.generate(x, 0)
    read = net.discriminators["Q"](net.discriminators["D"](fakes["picture"]).features[-1])
    category, number = fakes["code"][:, :3].argmax(1), fakes["code"][:, 3:]
    known = Categorical(logits=read[:, :3]).log_prob(category) + Normal(read[:, 3:], 1.0).log_prob(number).sum(1)
    bound = known.mean() + log(3) + 2 * log(2)
    torch.testing.assert_close(net.uncertainty(fakes), -bound)
    for weight in net.discriminators["Q"].parameters():
        torch.nn.init.zeros_(weight)
    blind = net.uncertainty(fakes)  # Q: each category alike, numbers at 0
    expected = number.pow(2).sum(1).mean() / 2 + 2 * (log(2 * pi) / 2 - log(2))
    torch.testing.assert_close(blind, expected)
    terms = net.discriminator_terms(x, {k: v.detach() for k, v in fakes.items()}, 0)
    torch.testing.assert_close(terms["D_information"], blind)
    off = model("infogan", "model.lambda_information=0").eval()
    assert off.generator_terms(x, off.generate(x, 0), 0)["G_information"].item() == 0


def test_infogan_codes_are_asked_for_by_number():
    net = model("infogan").eval()
    code = net.condition("2", None, [0.5, -1.0])
    assert code.tolist() == [0, 0, 1, 0.5, -1]
    assert net.condition(None, None, None).isnan().all()
    with pytest.raises(InputError, match="--code: found 1 numbers; allowed: 2"):
        net.condition(None, None, [1.0])
    with pytest.raises(InputError, match="--class: found '3'; allowed: 0, 1, 2"):
        net.condition("3", None, None)
    z, drawn = torch.randn(1, 10), []
    for asked in (code, net.condition("2", None, None), net.condition(None, None, None)):
        drawn.append(net.sampler(z, asked[None]))
    assert torch.equal(drawn[2], net.sampler(z))
    assert not torch.equal(drawn[0], drawn[1])
