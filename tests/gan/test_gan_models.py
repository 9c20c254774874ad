"""Models: terms against the equations written out, gradients on the right side only, learning."""

import pytest
import torch
from gan_toy import TINY, picture
from torch import nn

from gan_baselines.data.pictures import to_range, to_tensor
from gan_baselines.errors import InputError
from gan_baselines.inference import presenting, sample, translate
from gan_baselines.models import build
from gan_baselines.settings import resolve


def model(name, *sets, seed=0):
    torch.manual_seed(seed)
    return build(resolve(name, None, [*TINY[name], *sets]).model)


def batch(size=2):
    sides = [torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(2)]
    return {"A": sides[0], "B": sides[1], "picture": sides[0]}


def total(terms):
    return torch.stack(list(terms.values())).sum()


def test_cyclegan_terms_are_equation_3():
    net, x = model("cyclegan"), batch()
    g, f = net.generators["AB"], net.generators["BA"]
    d_a, d_b = net.discriminators["A"], net.discriminators["B"]
    a, b = x["A"], x["B"]
    terms = net.generator_terms(x, net.generate(x, 0.0), 0.0)
    expected = (d_b(g(a)).logits[0] - 1).pow(2).mean() + (d_a(f(b)).logits[0] - 1).pow(2).mean()
    expected += 10 * ((f(g(a)) - a).abs().mean() + (g(f(b)) - b).abs().mean())
    expected += 5 * ((g(b) - b).abs().mean() + (f(a) - a).abs().mean())
    torch.testing.assert_close(total(terms), expected)
    fakes = {"A": f(b).detach(), "B": g(a).detach()}
    halves = [(d(r).logits[0] - 1).pow(2).mean() + d(w).logits[0].pow(2).mean()
              for d, r, w in ((d_a, a, fakes["A"]), (d_b, b, fakes["B"]))]  # fmt: skip
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0.0)), 0.5 * (halves[0] + halves[1]))


def test_cyclegan_l2_and_without_identity():
    net, x = model("cyclegan", "model.cycle_norm=l2", "model.lambda_identity=0"), batch()
    fakes = net.generate(x, 0.0)
    assert set(fakes) == {"A", "B"}
    cycle = net.generators["BA"](fakes["B"])
    terms = net.generator_terms(x, fakes, 0.0)
    torch.testing.assert_close(terms["cycle_A"], 10 * (cycle - x["A"]).pow(2).mean())
    assert not [name for name in terms if name.startswith("identity")]


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_the_cycle_of_codes_is_the_distance_of_the_generators_middles(kind):
    """Middles by hooks: behind half of the residual blocks, or behind the innermost halving."""
    sets = ["model.lambda_latent=2", f"model.generator.kind={kind}", "model.generator.blocks=2"]
    net, x = model("cyclegan", *sets, *(["model.generator.downs=3"] if kind == "unet" else [])), batch()
    g, f = net.generators["AB"], net.generators["BA"]
    seen = {}
    for name, part in (("g", g), ("f", f)):
        blocks = [layer for layer in part.modules() if type(layer).__name__ == "ResidualBlock"]
        middle = blocks[0] if kind == "resnet" else part.downs[-1]
        middle.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    terms = net.generator_terms(x, net.generate(x, 0.0), 0.0)
    for side, first, second in (("A", g, f), ("B", f, g)):
        fake = first(x[side])
        one = seen["g" if first is g else "f"]
        second(fake)
        other = seen["f" if first is g else "g"]
        assert one.shape[-1] == (8 if kind == "resnet" else 4)
        torch.testing.assert_close(terms[f"latent_{side}"], 2 * (other - one).abs().mean())


@pytest.mark.parametrize("quality", ["none", "fake", "real"])
def test_modified_cycle_is_the_papers_bracket(quality):
    net, x = model("modified-cyclegan", f"model.quality={quality}", "model.alpha_start=0.1"), batch()
    for d in net.discriminators.values():
        nn.init.constant_(d.scales[0][-1].bias, 0.4)  # scores away from the clamp
    a = x["A"]
    fake = net.generators["AB"](a)
    cycle = net.generators["BA"](fake)
    progress = 0.25
    alpha, weight = 0.1 + 0.25 * 0.8, 10 - 0.25 * 9
    d_a, d_b = net.discriminators["A"], net.discriminators["B"]
    expected = 0.0
    for i in range(2):
        features = (d_a(cycle[i : i + 1]).features[-1] - d_a(a[i : i + 1]).features[-1]).abs().mean()
        bracket = alpha * features + (1 - alpha) * (cycle[i] - a[i]).abs().mean()
        score = {"none": 1.0, "fake": d_b(fake[i : i + 1]).logits[0].mean(), "real": d_a(a[i : i + 1]).logits[0].mean()}
        expected += weight * score[quality] * bracket / 2
    terms = net.generator_terms(x, net.generate(x, 0.0), progress)
    torch.testing.assert_close(terms["cycle_A"], expected)


def test_quality_passes_no_gradient_to_the_discriminator_that_scores():
    net, x = model("modified-cyclegan"), batch()
    nn.init.constant_(net.discriminators["B"].scales[0][-1].bias, 0.4)
    net.generator_terms(x, net.generate(x, 0.0), 0.5)["cycle_A"].backward()
    assert all(p.grad is None for p in net.discriminators["B"].parameters())


def test_schedule_ends_are_checked():
    for bad in ("model.alpha_end=1", "model.lambda_end=0", "model.lambda_end=11"):
        with pytest.raises(InputError):
            resolve("modified-cyclegan", None, [bad])


def test_pix2pix_terms_are_equation_4():
    net, x = model("pix2pix", "model.generator.dropout=false"), batch()
    d, fakes = net.discriminators["B"], net.generate(x, 0.0)
    log = torch.nn.functional.logsigmoid
    terms = net.generator_terms(x, fakes, 0.0)
    adversarial = -log(d(fakes["B"], x["A"]).logits[0]).mean()
    torch.testing.assert_close(total(terms), adversarial + 100 * (fakes["B"] - x["B"]).abs().mean())
    halves = net.discriminator_terms(x, {"B": fakes["B"].detach()}, 0.0)
    real, fake = d(x["B"], x["A"]).logits[0], d(fakes["B"], x["A"]).logits[0]
    torch.testing.assert_close(total(halves), 0.5 * (-log(real).mean() - log(-fake).mean()))


@pytest.mark.parametrize(
    ("sets", "terms", "channels"),
    [
        (["model.gan=false"], {"G_l1"}, None),
        (["model.lambda_l1=0"], {"G_adversarial"}, 6),
        (["model.conditional=false"], {"G_l1", "G_adversarial"}, 3),
        (["model.norm=group", "model.norm.channels_per_group=2"], {"G_l1", "G_adversarial"}, 6),
        (["model.generator.skips=false"], {"G_l1", "G_adversarial"}, 6),
    ],
)  # fmt: skip
def test_pix2pix_switches(sets, terms, channels):
    net, x = model("pix2pix", *sets), batch()
    assert set(net.generator_terms(x, net.generate(x, 0.0), 0.0)) == terms
    found = [d.scales[0][0][0].in_channels for d in net.discriminators.values()]
    assert found == ([] if channels is None else [channels])
    kinds = {type(m) for m in net.modules()} & {nn.BatchNorm2d, nn.GroupNorm}
    assert kinds == {nn.GroupNorm if "model.norm=group" in sets else nn.BatchNorm2d}


def test_dcgan_terms():
    net, x = model("dcgan"), batch(4)
    fakes = net.generate(x, 0.0)
    assert fakes["picture"].shape == x["picture"].shape
    log = torch.nn.functional.logsigmoid
    d = net.discriminators["D"]
    fake = d(fakes["picture"].detach()).logits[0]
    torch.testing.assert_close(
        total(net.discriminator_terms(x, fakes, 0.0)), -log(d(x["picture"]).logits[0]).mean() - log(-fake).mean()
    )


def test_presenting_leaves_no_trace():
    net, x = model("pix2pix", "model.generator.downs=6").generators["AB"].train(), batch()["A"]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    one, two = (translate(net, x[0], 64, seed=3) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, translate(net, x[0], 64, seed=4))
    assert torch.equal(translate(net, x[0], 64, dropout=False), translate(net, x[0], 64, dropout=False, seed=9))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(m.training for m in net.modules())
    with pytest.raises(RuntimeError, match="inside"), presenting(net):
        raise RuntimeError("inside")
    assert all(m.training for m in net.modules())


def test_translate_takes_any_size_and_sample_any_batch():
    net = model("cyclegan").generators["AB"]
    for height, width in ((30, 45), (1, 1), (3, 9)):
        assert translate(net, torch.zeros(3, height, width), 4).shape == (3, height, width)
    g = model("dcgan").generators["G"]
    alone, together = list(sample(g, 3, 7, batch=1)), list(sample(g, 3, 7, batch=3))
    torch.testing.assert_close(torch.stack(alone), torch.stack(together), atol=1e-5, rtol=1e-4)


def test_pix2pix_learns_four_pictures_by_heart():
    sets = ["model.generator.width=8", "model.generator.dropout=false", "model.norm=instance"]
    net = model("pix2pix", *sets)
    a = to_range(torch.stack([to_tensor(picture(i)) for i in range(4)]))
    x = {"A": a, "B": -a}
    adams = [torch.optim.Adam(part.parameters(), 2e-3, betas=(0.5, 0.999), fused=True)
             for part in (net.generators, net.discriminators)]  # fmt: skip
    for _ in range(150):
        fakes = net.generate(x, 0.0)
        for part, adam in ((net.discriminators, adams[1]), (net.generators, adams[0])):
            net.discriminators.requires_grad_(part is net.discriminators)
            terms = (net.discriminator_terms(x, {"B": fakes["B"].detach()}, 0.0) if part is net.discriminators
                     else net.generator_terms(x, fakes, 0.0))  # fmt: skip
            adam.zero_grad()
            total(terms).backward()
            adam.step()
    error = float((net.generators["AB"](a) + a).detach().abs().mean())
    identity = float((2 * a).abs().mean())
    assert error < 0.1
    assert error < identity / 5
