"""StackGAN and ProgressiveGAN: sentences, stages, growth."""

import pytest
import torch
from gan_toy import FAST, TINY, batch_for
from test_gan_every_model import model, total
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import avg_pool2d, logsigmoid

from gan_baselines.errors import InputError
from gan_baselines.inference import sample
from gan_baselines.networks.progressive import EqualConv, pixel_norm, place, with_deviation
from gan_baselines.networks.text import TextCondition, masked_bce, other_sentences
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights


def test_a_sentence_is_the_mean_of_its_words():
    text = TextCondition(3, 4, 2)
    words = torch.tensor([[1, 3, 0], [2, 0, 0]])
    vectors = text.words.weight
    wanted = text.last(torch.stack([(vectors[1] + vectors[3]) / 2, vectors[2]]))
    torch.testing.assert_close(torch.cat(text(words), 1), wanted)


def test_wrong_sentences_are_other_ones():
    words = torch.tensor([[1, 2], [1, 2], [3, 0], [1, 2]])
    place, known = other_sentences(words)
    assert place.tolist() == [2, 2, 3, 2]
    assert known.all()
    assert not other_sentences(words[:2])[1].any()
    logits = torch.tensor([1.0, -2.0])[:, None, None, None]
    assert float(masked_bce(logits, 1.0, torch.tensor([0.0, 1.0]))) == pytest.approx(
        -float(logsigmoid(torch.tensor(-2.0)))
    )
    assert float(masked_bce(logits, 1.0, torch.zeros(2))) == 0


def test_stackgan_terms_are_equations_3_and_4():
    net, x = model("stackgan").eval(), batch_for("stackgan", count=2)
    torch.manual_seed(1)
    fakes = net.generate(x, 0)
    torch.manual_seed(1)
    noise = torch.randn(2, 4 + 3)
    mean, log_variance = net.generators["T"](x["words"])
    c = mean + noise[:, 4:] * (log_variance / 2).exp()
    picture = net.generators["G"](torch.cat([noise[:, :4], c], 1))
    torch.testing.assert_close(fakes["picture"], picture)
    d, real = net.discriminators["D"], avg_pool2d(x["picture"], 2)
    kl = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    expected = -logsigmoid(d(picture, mean).logits[0]).mean() + 2 * kl
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 0)), expected)
    on_d = -logsigmoid(d(real, mean).logits[0]).mean()
    on_d += 0.5 * (
        -logsigmoid(-d(real, mean.flip(0)).logits[0]).mean() - logsigmoid(-d(picture, mean).logits[0]).mean()
    )
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0)), on_d)


def test_without_augmentation_a_sentence_is_one_point():
    net, x = model("stackgan", "model.augment=false").eval(), batch_for("stackgan")
    noise = torch.randn(2, 7)
    moved = torch.cat([noise[:, :4], noise[:, 4:] + 1], 1)
    assert torch.equal(net.draw(x["words"], noise)[0], net.draw(x["words"], moved)[0])
    assert set(net.generator_terms(x, net.generate(x, 0), 0)) == {"G_adversarial"}
    augmented = model("stackgan").eval()
    assert not torch.equal(augmented.draw(x["words"], noise)[0], augmented.draw(x["words"], moved)[0])


def test_stage_two_stands_on_a_frozen_stage_one_that_goes_with_it(data, tmp_path):
    sets = [*FAST, *TINY["stackgan"], "train.steps=1"]
    train("stackgan", data / "captioned", tmp_path / "one", sets=sets)
    second = [*sets, "model.stage=2", f"model.stage_from={tmp_path / 'one' / 'weights'}", "train.lr=0.01"]
    train("stackgan", data / "captioned", tmp_path / "two", sets=second)
    one, two = (load_weights(tmp_path / run / "weights") for run in ("one", "two"))
    for name in ("T", "G"):
        carried = two.network.helpers[name].state_dict()
        assert all(torch.equal(carried[key], value) for key, value in one.generators[name].state_dict().items())
    (tmp_path / "one").rename(tmp_path / "gone")
    net = load_weights(tmp_path / "two" / "weights")
    words = net.network.condition(None, "Disc a", None)
    sizes = [next(iter(sample(w.noise_generator, 1, 0, condition=words))).shape for w in (one, net)]
    assert sizes == [(3, 16, 16), (3, 32, 32)]
    for asked, message in (((None, None, None), "--prompt: found nothing"), ((None, "a fox", None), "the word 'fox'")):
        with pytest.raises(InputError, match=message):
            net.network.condition(*asked)
    with pytest.raises(InputError, match="model.stage_from: found nothing"):
        train("stackgan", data / "captioned", tmp_path / "x", sets=[*sets, "model.stage=2"])


def test_stage_two_adds_the_picture_alone():
    net, x = model("stackgan", "model.stage=2").eval(), batch_for("stackgan")
    fakes, d = net.generate(x, 0), net.discriminators["D"]
    assert set(net.discriminator_terms(x, fakes, 0)) == {"D_real", "D_wrong", "D_fake", "D_plain"}
    with_words, alone = d(fakes["picture"], fakes["mean"]).logits
    wanted = -logsigmoid(with_words).mean() - logsigmoid(alone).mean()
    torch.testing.assert_close(net.generator_terms(x, fakes, 0)["G_adversarial"], wanted)
    torch.testing.assert_close(d(fakes["picture"], fakes["mean"] + 1).logits[1], alone)


def test_levels_fade_in_and_stay_equally_long():
    found = [place(segment / 5, 3) for segment in (0, 0.5, 1, 1.5, 2, 3, 4.25, 5)]
    wanted = [(0, 1.0), (0, 1.0), (1, 0.0), (1, 0.5), (1, 1.0), (2, 0.0), (2, 1.0), (2, 1.0)]
    assert [level for level, _ in found] == [level for level, _ in wanted]
    assert [share for _, share in found] == pytest.approx([share for _, share in wanted], abs=1e-6)


def test_equalised_weights_have_hes_scale():
    torch.manual_seed(0)
    conv = EqualConv(64, 64)
    x = torch.randn(4, 64, 16, 16)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    assert conv(x)[..., 1:-1, 1:-1].pow(2).mean().item() == pytest.approx(2, rel=0.1)
    normal = pixel_norm(x * 7)
    torch.testing.assert_close(normal.pow(2).mean(1), torch.ones(4, 16, 16), atol=1e-4, rtol=1e-4)


def test_deviation_plane_sees_copies():
    x = torch.randn(4, 3, 2, 2)
    plane = with_deviation(x)[:, 3]
    wanted = x.std(0, unbiased=False).mean()
    torch.testing.assert_close(plane, wanted.expand(4, 2, 2), atol=1e-4, rtol=1e-4)
    assert float(with_deviation(x[:1].repeat(4, 1, 1, 1))[:, 3].max()) < 1e-3
    assert with_deviation(torch.randn(6, 1, 2, 2)).shape == (6, 2, 2, 2)  # two groups of three


def test_growth_starts_from_the_picture_below_and_ends_in_the_new_one():
    net = model("progan", "model.widths=[4, 4, 2]").eval()
    g, z = net.generators["G"], torch.randn(2, 4)
    before, begun = g(z, 0.999 * 3 / 5), g(z, 3 / 5 + 1e-9)  # the second level whole, and the third not yet seen
    assert (before.shape[-1], begun.shape[-1]) == (8, 16)
    torch.testing.assert_close(begun, before.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-5, rtol=1e-4)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(net.real(x, 0.0), avg_pool2d(x, 4))
    torch.testing.assert_close(net.real(x, 1.0), x)
    half = avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(net.real(x, 3.5 / 5), 0.5 * (x + half))
    d = net.discriminators["D"]
    at_start = d(begun.detach(), torch.full((2,), 3 / 5 + 1e-9, dtype=torch.float64)).logits[0]
    below = d(before.detach(), torch.full((2,), 0.599)).logits[0]
    torch.testing.assert_close(at_start, below, atol=1e-4, rtol=1e-3)


def test_progan_terms_are_the_wasserstein_game():
    net, x = model("progan"), batch_for("progan")
    fakes, d = net.generate(x, 1.0), net.discriminators["D"]
    where = torch.ones(2)
    real, fake = d(x["picture"], where).logits[0], d(fakes["picture"], where).logits[0]
    torch.testing.assert_close(total(net.generator_terms(x, fakes, 1.0)), -fake.mean())
    torch.manual_seed(5)
    terms = net.discriminator_terms(x, {k: v.detach() for k, v in fakes.items()}, 1.0)
    torch.manual_seed(5)
    share = torch.rand(2, 1, 1, 1)
    between = (share * x["picture"] + (1 - share) * fakes["picture"].detach()).requires_grad_()
    (slope,) = torch.autograd.grad(d(between, where).logits[0].sum(), between)
    penalty = 10 * (slope.flatten(1).pow(2).sum(1).sqrt() - 1).pow(2).mean()
    torch.testing.assert_close(total(terms), fake.mean() - real.mean() + penalty + 1e-3 * real.pow(2).mean())
    assert set(model("progan", "model.grow=false").generate(x, 0.0)["picture"].shape[-2:]) == {32}


def test_samples_show_what_the_weights_have_grown_to():
    net = model("progan").eval()
    g, z = net.generators["G"], torch.randn(1, 4)
    net.generate(batch_for("progan"), 0.0)
    made = g(z)
    assert made.shape == (1, 3, 32, 32)
    torch.testing.assert_close(made, g(z, 0.0).repeat_interleave(8, 2).repeat_interleave(8, 3))
