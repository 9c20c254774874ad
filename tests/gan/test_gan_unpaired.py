"""Unpaired models: their terms against the equations written out, and limits with known answers."""

import pytest
import torch
from gan_toy import FAST, TINY, batch_for
from PIL import Image
from safetensors.torch import save_file
from test_gan_every_model import model, total
from torch import nn
from torch.nn.functional import cross_entropy, logsigmoid
from typer.testing import CliRunner

from gan_baselines.cli import app
from gan_baselines.data.batches import Batches
from gan_baselines.errors import InputError
from gan_baselines.networks import adain, count_parameters
from gan_baselines.settings import resolve
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights, started


def squares(logits, target):
    return torch.stack([(part - target).pow(2).mean() for part in logits]).sum()


@pytest.mark.parametrize(("progress", "r"), [(0.0, 0.01), (0.19, 0.01), (0.2, 0.5), (1.0, 0.5)])
def test_discogan_is_its_codes_sum_with_the_step_of_r(progress, r):
    net, x = model("discogan").eval(), batch_for("discogan")
    terms, expected = net.generator_terms(x, net.generate(x, progress), progress), 0.0
    for source, target in (("A", "B"), ("B", "A")):
        fake, d = net.generators[source + target](x[source]), net.discriminators[target]
        real, made = d(x[target]).features, d(fake).features
        matched = sum((a.mean(0) - b.mean(0)).pow(2).mean() for a, b in zip(real[1:], made[1:], strict=True))
        cycle = net.generators[target + source](fake)
        on_unit = ((cycle + 1) / 2 - (x[source] + 1) / 2).pow(2).mean()
        expected += (1 - r) * (0.1 * -logsigmoid(d(fake).logits[0]).mean() + 0.9 * matched) + r * on_unit
    torch.testing.assert_close(total(terms), expected)


def test_discogan_variants_and_turns():
    assert [model("discogan").turns(step)[0][0] for step in range(4)] == ["d", "g", "g", "d"]
    plain, one = (model("discogan", f"model.variant={kind}") for kind in ("gan", "recongan"))
    assert (list(plain.generators), list(one.generators), list(one.discriminators)) == (["AB"], ["AB", "BA"], ["B"])
    x = batch_for("discogan")
    assert set(plain.generator_terms(x, plain.generate(x, 1.0), 1.0)) == {"G_AB", "features_B"}
    assert set(one.generator_terms(x, one.generate(x, 1.0), 1.0)) == {"G_AB", "features_B", "cycle_A"}


def test_simgan_terms_and_algorithm_1():
    net, x = model("simgan", "model.lambda_content=3"), batch_for("simgan")
    fake = net.generators["AB"](x["A"])
    expected = squares(net.discriminators["B"](fake).logits, 1) + 3 * (fake - x["A"]).abs().mean()
    torch.testing.assert_close(total(net.generator_terms(x, net.generate(x, 0), 0)), expected)
    turns = ["warm_generator=2", "warm_discriminator=1", "generator_turns=2", "discriminator_turns=1"]
    net = model("simgan", *(f"model.{text}" for text in turns))
    assert "".join(net.turns(step)[0][0] for step in range(9)) == "ggd" + "ggd" * 2
    assert model("simgan").turns(5) == ("generator", "discriminator")


def test_feature_gan_measures_in_features_and_leaves_them_alone():
    net, x = model("feature-gan", "model.feature_layer=1", "model.lambda_content=1").train(), batch_for("simgan")
    fakes = net.generate(x, 0)
    convs = [part for part in net.helpers["f"].features if isinstance(part, nn.Conv2d)]

    def relu_1_2(picture):
        return convs[1](convs[0]((picture + 1) / 2 * 2 - 1).relu()).relu()

    wanted = (relu_1_2(fakes["B"]) - relu_1_2(x["A"])).abs().mean()
    torch.testing.assert_close(net.generator_terms(x, fakes, 0)["G_content"], wanted)
    with pytest.raises(InputError, match="model.features_from: found nothing"):
        started(resolve("feature-gan", None, TINY["cyclegan"]).model)


def test_features_come_from_a_file_of_a_larger_classifier(tmp_path):
    config = resolve("feature-gan", None, TINY["feature-gan"]).model
    own = started(config).helpers["f"].state_dict()
    torch.manual_seed(9)
    others = {name: torch.randn_like(tensor) for name, tensor in own.items()}
    save_file({**others, "classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg.safetensors")
    config = config.model_copy(update={"features_from": str(tmp_path / "vgg.safetensors")})
    filled = started(config).helpers["f"].state_dict()
    assert all(torch.equal(filled[name], tensor) for name, tensor in others.items())
    save_file({"classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg.safetensors")
    with pytest.raises(InputError, match="model.features_from: found .* of another shape"):
        started(config)


def test_bigan_calls_the_first_pair_real_and_each_network_wants_the_other():
    net, x = model("bigan"), batch_for("bigan")
    g, e, d = net.generators["AB"], net.generators["BA"], net.discriminators["D"]
    first, second = torch.cat([x["A"], g(x["A"])], 1), torch.cat([e(x["B"]), x["B"]], 1)
    terms = net.generator_terms(x, net.generate(x, 0), 0)
    torch.testing.assert_close(terms["G_AB"], squares(d(first).logits, 0))
    torch.testing.assert_close(terms["G_BA"], squares(d(second).logits, 1))
    halves = net.discriminator_terms(x, {"AG": first.detach(), "EB": second.detach()}, 0)
    torch.testing.assert_close(total(halves), 0.5 * (squares(d(first).logits, 1) + squares(d(second).logits, 0)))


@pytest.mark.parametrize("transform", ["rot90", "vflip"])
def test_gcgan_costs_nothing_where_translation_commutes(transform):
    net, x = model("gcgan", f"model.transform={transform}"), batch_for("gcgan")
    turned = net.transform(x["A"])
    assert not torch.equal(turned, x["A"])
    assert torch.equal(net.inverse(turned), x["A"])
    terms = net.generator_terms(x, net.generate(x, 0), 0)
    plain, moved = net.generators["AB"](x["A"]), net.generators["AB"](turned)
    wanted = 20 * ((plain - net.inverse(moved)).abs().mean() + (moved - net.transform(plain)).abs().mean())
    torch.testing.assert_close(terms["geometry"], wanted)
    assert terms["identity_B"].item() == pytest.approx(5 * (net.generators["AB"](x["B"]) - x["B"]).abs().mean().item())
    net.generators["AB"] = nn.Conv2d(3, 3, 1)  # colours alone: commutes with every movement
    assert net.generator_terms(x, net.generate(x, 0), 0)["geometry"].item() < 1e-5


def test_gcgan_targets_carry_no_gradient():
    net, x = model("gcgan"), batch_for("gcgan")
    fakes = {k: v.detach().requires_grad_() for k, v in net.generate(x, 0).items()}
    net.generator_terms(x, fakes, 0)["geometry"].backward()
    n = fakes["B"][0].numel() * len(fakes["B"])
    # once in each difference would be twice this without the stop
    assert fakes["B"].grad.abs().max() * n == pytest.approx(20)


def test_dtn_sorts_three_kinds_of_pictures():
    sets = ["model.lambda_constancy=2", "model.lambda_identity=3", "model.lambda_variation=1"]
    net, x = model("dtn", *sets).eval(), batch_for("dtn")
    f, g, d = net.helpers["f"].code, net.generators["g"], net.discriminators["D"]
    s, t = g(f(x["A"])), g(f(x["B"]))

    def says(picture, kind):
        return cross_entropy(d(picture).logits[0].flatten(1), torch.full((2,), kind))

    def variation(p):
        return (p[:, :, 1:] - p[:, :, :-1]).pow(2).mean() + (p[..., 1:] - p[..., :-1]).pow(2).mean()

    expected = says(s, 2) + says(t, 2) + 2 * (f(s) - f(x["A"])).pow(2).mean() + 3 * (t - x["B"]).pow(2).mean()
    terms = net.generator_terms(x, net.generate(x, 0), 0)
    torch.testing.assert_close(total(terms), expected + variation(s) + variation(t))
    fakes = {"from_A": s.detach(), "from_B": t.detach()}
    wanted = says(s, 0) + says(t, 1) + says(x["B"], 2)
    torch.testing.assert_close(total(net.discriminator_terms(x, fakes, 0)), wanted)


def test_dtn_takes_its_representation_from_a_classifier_and_carries_it(data, tmp_path):
    train("classifier", data / "classed", tmp_path / "c", sets=[*FAST, *TINY["classifier"], "train.steps=2"])
    sets = [*FAST, *TINY["dtn"], "train.steps=1", f"model.features_from={tmp_path / 'c' / 'weights'}"]
    train("dtn", data, tmp_path / "d", sets=sets)
    trunk = load_weights(tmp_path / "c" / "weights").generators["f"].state_dict()
    carried = load_weights(tmp_path / "d" / "weights").network.helpers["f"].state_dict()
    assert all(torch.equal(trunk[name], tensor) for name, tensor in carried.items())


def test_a_classifier_learns_which_folder_a_picture_is_from(data, tmp_path):
    sets = [*FAST, *TINY["classifier"], "model.features.width=8", "train.steps=60", "train.lr=0.01", "data.flip=false"]
    train("classifier", data / "classed", tmp_path / "c", sets=[*sets, "train.batch_size=8", "train.decay_epochs=0"])
    batch = Batches(data / "classed", resolve("classifier", None, ["train.batch_size=8"]), "classed").at(0)
    net = load_weights(tmp_path / "c" / "weights").network
    assert (net.logits(batch["picture"]).argmax(1) == batch["class"]).all()


def test_cogan_shares_all_but_its_own_layers():
    counts = [count_parameters(model("cogan", f"model.own_generator={own}").generators) for own in (1, 2, 3)]
    assert counts[0] < counts[1] < counts[2]
    net = model("cogan").eval()
    g, z = net.generators["G"], torch.randn(2, 6)
    sheet = g(z)
    assert torch.equal(torch.cat([g.one(z, "A"), g.one(z, "B")], 3), sheet)
    g.own["B"].load_state_dict(g.own["A"].state_dict())
    assert torch.equal(*g(z).chunk(2, 3))  # what is not shared is all that tells the domains apart


def test_cogan_adds_both_domains_games():
    net, x = model("cogan").eval(), batch_for("cogan")
    sheet = net.generators["G"](torch.randn(2, 6))
    d = net.discriminators["D"]
    real, fake = d(torch.cat([x["A"], x["B"]], 3)).logits, d(sheet).logits
    expected = sum(-logsigmoid(r).mean() - logsigmoid(-f).mean() for r, f in zip(real, fake, strict=True))
    torch.testing.assert_close(total(net.discriminator_terms(x, {"sheet": sheet}, 0)), expected)


def test_cogan_translates_by_finding_the_noise():
    net = model("cogan", "model.search=300").eval()
    for part in net.modules():  # at the first weights all pictures are grey
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0, 0.3)
    g, z = net.generators["G"], torch.randn(1, 6)
    torch.manual_seed(1)
    made = net.translate("AB", g.one(z, "A"))
    other = g.one(torch.randn(1, 6), "B")
    assert (made - g.one(z, "B")).abs().mean() < 0.2 * (other - g.one(z, "B")).abs().mean()
    with pytest.raises(InputError, match="32x32 px"):
        net.translate("AB", torch.zeros(1, 3, 16, 16))


def test_unit_terms_are_both_domains_five():
    net, x = model("unit", "model.discriminator.scales=2", "model.loss=lsgan"), batch_for("unit", 64)
    torch.manual_seed(7)
    terms = net.generator_terms(x, net.generate(x, 0), 0)
    torch.manual_seed(7)
    codes, fakes, expected = {}, {}, 0.0
    for source, target in ("AB", "BA"):
        codes[source] = net.encode(x[source], source)
        z = codes[source] + torch.randn_like(codes[source])
        expected += 0.1 * codes[source].pow(2).mean() + 100 * (net.decode(z, source) - x[source]).abs().mean()
        fakes[target] = net.decode(z, target)
    for source, target in ("AB", "BA"):
        again = net.encode(fakes[target], target)
        back = net.decode(again + torch.randn_like(again), source)
        expected += 10 * squares(net.discriminators[target](fakes[target]).logits, 1) + 0.1 * again.pow(2).mean()
        expected += 100 * (back - x[source]).abs().mean()
    torch.testing.assert_close(total(terms), expected)


def test_unit_ties_one_block_on_each_side_of_the_code():
    tied, free = model("unit"), model("unit", "model.tied=false")
    assert tied.parts("AB") == ("E_A", "E_inner_shared", "G_inner_shared", "G_B")
    block = count_parameters(tied.generators["E_inner_shared"])
    assert count_parameters(free.generators) - count_parameters(tied.generators) == 2 * block


def test_adain_gives_the_mean_and_deviation_asked_for():
    x = torch.randn(2, 5, 6, 6) * 3 + 1
    scale, shift = torch.rand(2, 5) + 0.5, torch.randn(2, 5)
    made = adain(x, scale, shift)
    torch.testing.assert_close(made.mean((2, 3)), shift, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.std((2, 3), unbiased=False), scale, atol=1e-4, rtol=1e-4)


def test_munit_terms_are_equations_1_to_5():
    net, x = model("munit", "model.discriminator.scales=2", "model.lambda_cycle=10"), batch_for("munit", 64)
    torch.manual_seed(3)
    fakes = net.generate(x, 0)
    terms, expected = net.generator_terms(x, fakes, 0), 0.0
    torch.manual_seed(3)
    drawn = {target: torch.randn(2, 3) for target in "BA"}
    for source, target in ("AB", "BA"):
        own, other = net.generators[source], net.generators[target]
        content, style = own.content(x[source]), own.style(x[source])
        fake = other.decode(content, drawn[target])
        expected += squares(net.discriminators[target](fake).logits, 1)
        expected += 10 * (own.decode(content, style) - x[source]).abs().mean()
        expected += (other.content(fake) - content).abs().mean() + (other.style(fake) - drawn[target]).abs().mean()
        expected += 10 * (own.decode(other.content(fake), style) - x[source]).abs().mean()
    torch.testing.assert_close(total(terms), expected)
    on_d = net.discriminator_terms(x, {k: v.detach() for k, v in fakes.items()}, 0)
    wanted = 0.0
    for side, d in net.discriminators.items():
        wanted += squares(d(x[side]).logits, 1) + squares(d(fakes[side]).logits, 0)
    torch.testing.assert_close(total(on_d), wanted)


@pytest.mark.parametrize(("cycles", "kept"), [("both", "AB"), ("forward", "A"), ("backward", "B")])
def test_cycles_of_one_direction(cycles, kept):
    net, x = model("cyclegan", f"model.cycles={cycles}"), batch_for("cyclegan")
    terms = net.generator_terms(x, net.generate(x, 0), 0)
    assert {name for name in terms if name.startswith("cycle")} == {f"cycle_{side}" for side in kept}
    assert {"G_AB", "G_BA", "identity_A", "identity_B"} < set(terms)
    without = model("cyclegan", f"model.cycles={cycles}", "model.lambda_gan=0")
    without.load_state_dict(net.state_dict())
    left = without.generator_terms(x, without.generate(x, 0), 0)
    assert left == {name: value for name, value in terms.items() if not name.startswith("G_")}


def test_one_discriminator_judges_both_sides_and_is_stored_for_each(data, tmp_path):
    net = model("cyclegan", "model.one_discriminator=true")
    assert net.discriminators["A"] is net.discriminators["B"]
    assert 2 * count_parameters(net.discriminators) == count_parameters(model("cyclegan").discriminators)
    sets = [*FAST, *TINY["cyclegan"], "model.one_discriminator=true", "train.steps=2"]
    train("cyclegan", data, tmp_path / "r", sets=sets)
    files = [(tmp_path / "r" / "weights" / f"discriminator_{side}.safetensors").read_bytes() for side in "AB"]
    assert files[0] == files[1]


def test_translate_gives_several_answers_or_one_by_example(data, tmp_path):
    train("munit", data, tmp_path / "m", sets=[*FAST, *TINY["munit"], "train.steps=1", "train.lr=0.01"])
    base = ["translate", "--weights", tmp_path / "m" / "weights", "--input", data / "testA" / "1.png", "--threads", 1]

    def pictures(out, *more):
        done = CliRunner().invoke(app, [str(a) for a in [*base, "--output", tmp_path / out, *more]])
        assert done.exit_code == 0, done.output
        return {path.name: Image.open(path).tobytes() for path in sorted((tmp_path / out).iterdir())}

    three = pictures("a", "--samples", 3, "--seed", 4)
    assert list(three) == ["1_0.png", "1_1.png", "1_2.png"]
    assert len(set(three.values())) == 3
    assert pictures("b", "--seed", 5)["1.png"] == three["1_1.png"]
    styled = [pictures(f"s{seed}", "--style", data / "testB" / "2.png", "--seed", seed)["1.png"] for seed in (0, 1)]
    assert styled[0] == styled[1]  # the example decides, not the seed
    assert styled[0] != pictures("t", "--style", data / "testB" / "5.png")["1.png"]
    asked = ["evaluate", "--weights", tmp_path / "m" / "weights", "--data", data, "--limit", 2, "--samples", 3]
    value = CliRunner().invoke(app, [str(a) for a in [*asked, "--threads", 1, "--format", "json"]])
    assert value.exit_code == 0
    assert '"diversity"' in value.stdout
    assert '"best_l1"' in value.stdout
