"""What all models may rely on: who moves when, what each side gets, layouts with labels and words, penalties."""

import json

import numpy as np
import pytest
import torch
from gan_toy import FAST, TINY, picture
from PIL import Image
from torch import nn
from torch.distributions import Normal, kl_divergence

from gan_baselines import evaluate as evaluating
from gan_baselines.data import batches
from gan_baselines.data.augment import crop_flip, recolour
from gan_baselines.data.batches import Batches
from gan_baselines.data.folders import find_sources
from gan_baselines.data.marks import word_ids
from gan_baselines.data.pictures import read_labels
from gan_baselines.data.prepare import check_folder
from gan_baselines.data.scenes import from_scenes
from gan_baselines.errors import InputError
from gan_baselines.losses import (
    discriminator_terms,
    feature_matching,
    generator_term,
    gradient_penalty,
    kl_to_normal,
    mean_feature_matching,
    total_variation,
)
from gan_baselines.metrics import coverage, diversity
from gan_baselines.models import build
from gan_baselines.models.game import discriminator_game
from gan_baselines.networks import PatchDiscriminator, initialise
from gan_baselines.networks.diff_augment import holed, shifted
from gan_baselines.settings import resolve
from gan_baselines.training.run import Run, train
from gan_baselines.training.trainer import rate_factor
from gan_baselines.weights import load_weights


@pytest.fixture
def marked(tmp_path):
    """Scenes of one collection with masks, objects, backgrounds and captions."""
    lines = []
    for index in range(8):
        for folder in ("pictures", "masks"):
            (tmp_path / "scenes" / folder).mkdir(parents=True, exist_ok=True)
        picture(index).save(tmp_path / "scenes" / "pictures" / f"{index}.png")
        mask = Image.new("L", (32, 32))
        mask.paste(255, (index, 4, index + 10, 20))
        mask.save(tmp_path / "scenes" / "masks" / f"{index}.png")
        words = {"object": f"thing{index % 3}", "background": "red" if index % 2 else "blue"}
        caption = f"A {words['object']} on {words['background']}"
        files = {"picture": f"pictures/{index}.png", "mask": f"masks/{index}.png"}
        lines.append(json.dumps({**files, **words, "caption": caption}))
    (tmp_path / "scenes" / "scenes.jsonl").write_text("\n".join(lines))

    def arranged(layout):
        from_scenes(tmp_path / "scenes", tmp_path / layout, layout)
        return tmp_path / layout

    return arranged


def test_label_maps_follow_mask_object_and_background(marked):
    folder = marked("labelled")
    assert json.loads((folder / "labels.json").read_text()) == [
        "background blue", "background red", "thing0", "thing1", "thing2"
    ]  # fmt: skip
    for path in folder.rglob("labels/*.png"):
        index, labels = int(path.stem), read_labels(path)
        assert labels[10, index + 5] == 2 + index % 3
        assert labels[30, 30] == index % 2
        assert set(np.unique(labels)) == {index % 2, 2 + index % 3}
        instances = read_labels(path.parent.parent / "instances" / path.name)
        assert np.array_equal(instances == 1, labels >= 2)
    assert check_folder(folder, "labelled")["test"]["I"]["pictures"] == 2


def test_labels_in_colours_or_lonely_are_refused(marked):
    folder = marked("labelled")
    path = next((folder / "train" / "labels").iterdir())
    picture(0).save(path)
    with pytest.raises(InputError, match="in colours"):
        read_labels(path)
    path.unlink()
    with pytest.raises(InputError, match="only one of"):
        find_sources(folder, "labelled")


def test_captions_become_word_numbers(marked):
    folder = marked("captioned")
    sources = find_sources(folder, "captioned")["picture"]
    for path, text in zip(sources.files, sources.marks, strict=True):
        assert text.endswith("red" if int(path.stem) % 2 else "blue")
    assert word_ids("Red, a", ("a", "on", "red"), 4).tolist() == [3, 1, 0, 0]
    for text, message in (("green", "the word 'green'"), ("a a a a a", "5 words")):
        with pytest.raises(InputError, match=message):
            word_ids(text, ("a",), 4)
    (folder / "train" / "metadata.jsonl").write_text('{"file_name": "x.png"}\n')
    with pytest.raises(InputError, match="metadata.jsonl"):
        find_sources(folder, "captioned")


def test_classes_are_the_folders(marked):
    sources = find_sources(marked("classed"), "classed")["picture"]
    assert all(name == f"thing{int(path.stem) % 3}" for path, name in zip(sources.files, sources.marks, strict=True))


def test_training_goes_on_from_earlier_generators(data, tmp_path):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=2"]
    train("cyclegan", data, tmp_path / "first", sets=sets)
    first = tmp_path / "first" / "weights"
    train("cyclegan", data, tmp_path / "second", sets=[*sets, "train.lr=1e-12", f"model.generators_from={first}"])
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    ends = [load_weights(tmp_path / run / "weights").generators["AB"](x) for run in ("first", "second")]
    torch.testing.assert_close(*ends)
    other = [*sets, f"model.generators_from={first}", "model.generator.width=5"]
    with pytest.raises(InputError, match="model.generators_from: found .* of another shape"):
        train("cyclegan", data, tmp_path / "third", sets=other)
    assert not (tmp_path / "third").exists()


def test_players_take_the_turns_the_model_gives_and_see_all_results(data, tmp_path, monkeypatch):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=4", "model.pool=3"]
    run = Run(resolve("cyclegan", None, sets), data, tmp_path / "r", False)
    model, seen = run.trainer.model, []
    generate, judge = model.generate, model.discriminator_terms

    def generated(batch, progress):
        return {**generate(batch, progress), "extra": next(model.generators.parameters()).sum().expand(1)}

    def judged(batch, fakes, progress):
        seen.append((run.trainer.step, progress, fakes["extra"].requires_grad))
        return judge(batch, fakes, progress)

    monkeypatch.setattr(model, "generate", generated)
    monkeypatch.setattr(model, "discriminator_terms", judged)
    monkeypatch.setattr(model, "turns", lambda step: ("discriminator",) if step % 2 else ("generator",))
    sides = [next(nets.parameters()) for nets in (model.generators, model.discriminators)]
    for step in range(4):
        before = [weight.clone() for weight in sides]
        run.trainer.advance()
        moved = [not torch.equal(b, weight) for b, weight in zip(before, sides, strict=True)]
        assert moved == [step % 2 == 0, step % 2 == 1]
    assert seen == [(1, pytest.approx(1 / 3), False), (3, 1.0, False)]


def test_terms_are_averaged_over_the_steps_that_had_them(data, tmp_path, monkeypatch):
    run = Run(resolve("cyclegan", None, [*FAST, *TINY["cyclegan"], "train.steps=6"]), data, tmp_path / "r", False)
    model, trainer, said = run.trainer.model, run.trainer, []
    judge = model.discriminator_terms

    def judged(batch, fakes, progress):
        terms = judge(batch, fakes, progress)
        said.append({name: float(value.detach()) for name, value in terms.items()})
        return terms

    monkeypatch.setattr(model, "discriminator_terms", judged)
    monkeypatch.setattr(model, "turns", lambda step: ("generator",) if step % 3 else model.order)
    for _ in range(4):
        trainer.advance()
    assert len(said) == 2
    means = trainer.collect_losses()
    for name in said[0]:
        assert means[name] == pytest.approx((said[0][name] + said[1][name]) / 2, rel=1e-5)


def test_penalty_of_a_linear_judge_is_known():
    weight = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    real, fake = torch.zeros(3, 2, 1, 1), torch.ones(3, 2, 1, 1)
    penalty = gradient_penalty(lambda x: [(x * weight).sum((1, 2, 3), keepdim=True)], real, fake)
    assert float(penalty) == pytest.approx((5 - 1) ** 2)
    real, fake = discriminator_terms("wgangp", [torch.tensor([1.0, 3.0])], [torch.tensor([5.0])])
    assert (float(real), float(fake), float(generator_term("wgangp", [torch.tensor([5.0])]))) == (-2.0, 5.0, -5.0)


def test_penalty_reaches_every_weight_of_a_discriminator():
    config = resolve("cyclegan", None, ["model.loss=wgangp"]).model
    net = PatchDiscriminator(2, width=4)
    terms = discriminator_game(config, net, torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32))
    assert set(terms) == {"D_real", "D_fake", "D_penalty"}
    terms["D_penalty"].backward()
    weights = [part.weight.grad for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in weights)


def test_scales_add_up_where_asked():
    two = [torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 2, 2), 3.0)]
    assert float(generator_term("lsgan", two, "sum")) == 0 + 4
    assert float(generator_term("lsgan", two, "sum", towards=0.0)) == 1 + 9


def test_further_losses_by_their_formulas():
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    wanted = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_normal(mean, log_variance), wanted)
    a, b = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, -3.0]]], [[[0.0, 1.0]]]])
    assert float(feature_matching([a, a], [b, b])) == 2 * 5 / 4
    assert float(mean_feature_matching([a], [b])) == pytest.approx((0.25 + 1) / 2)
    varied = torch.tensor([[[[1.0, 3.0], [1.0, 0.0]]]])
    assert float(total_variation(varied)) == pytest.approx((0 + 9) / 2 + (4 + 1) / 2)


def test_initial_weights_of_each_kind():
    torch.manual_seed(0)
    stds = {}
    for kind in ("normal", "xavier", "kaiming"):
        net = nn.Sequential(nn.Linear(400, 100), nn.Conv2d(40, 80, 3))
        initialise(net, kind)
        assert all(part.bias.abs().sum() == 0 for part in net)
        stds[kind] = [float(part.weight.detach().std()) for part in net]
    assert stds["normal"] == pytest.approx([0.02, 0.02], rel=0.03)
    assert stds["xavier"] == pytest.approx([0.02 * (2 / 500) ** 0.5, 0.02 * (2 / (9 * 120)) ** 0.5], rel=0.03)
    assert stds["kaiming"] == pytest.approx([(2 / 400) ** 0.5, (2 / 360) ** 0.5], rel=0.03)


def test_rates_halve_and_weights_decay(data, tmp_path):
    config = resolve("cyclegan", None, ["train.steps=8", "train.decay_epochs=0", "train.halve_every=3"])
    assert [rate_factor(config, step, 8, 8) for step in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    decaying = resolve("cyclegan", None, [*FAST, *TINY["cyclegan"], "train.weight_decay=0.1"])
    run = Run(decaying, data, tmp_path / "r", False)
    assert {group["weight_decay"] for o in run.trainer.optimisers.values() for group in o.param_groups} == {0.1}


def test_training_is_measured_and_the_best_weights_are_kept(data, tmp_path, monkeypatch):
    kids = iter([3.0, 1.0, 2.0])
    sets = [*FAST, *TINY["pix2pix"], "train.steps=6", "train.evaluate_every=2", "train.evaluate_pictures=2"]
    monkeypatch.setattr(evaluating, "_direction", measured := counted(evaluating._direction, kids))
    train("pix2pix", data, tmp_path / "r", sets=sets)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kid"]) for line in lines] == [(2, 3.0), (4, 1.0), (6, 2.0)]
    assert measured.calls == 3
    assert load_weights(tmp_path / "r" / "best").about["steps"] == 4
    assert load_weights(tmp_path / "r" / "weights").about["steps"] == 6
    plain = [text for text in sets if "evaluate" not in text]
    train("pix2pix", data, tmp_path / "s", sets=plain)
    ends = [(tmp_path / run / "weights" / "generator_AB.safetensors").read_bytes() for run in "rs"]
    assert ends[0] == ends[1]  # measuring changes no step
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "train").symlink_to(data / "train")
    with pytest.raises(InputError, match="without a test split"):
        train("pix2pix", tmp_path / "only", tmp_path / "t", sets=sets)
    assert not (tmp_path / "t").exists()


def counted(direction, kids):
    def measured(*arguments):
        measured.calls += 1
        return {"model": {"kid": next(kids)}}

    measured.calls = 0
    return measured


def test_colours_change_by_the_amount_and_alike_in_pairs(data):
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(recolour(x, 0.0, torch.Generator()), x)
    ones = torch.full((64, 3, 2, 2), 0.2)  # gray: contrast and saturation have nothing to change
    factors = (recolour(ones, 0.3, torch.Generator().manual_seed(0))[:, 0, 0, 0] + 1) / 1.2
    assert factors.min() >= 0.7 - 1e-6
    assert factors.max() <= 1.3 + 1e-6
    assert factors.std() > 0.1
    config = resolve("pix2pix", None, ["train.batch_size=4", "data.colour=0.4", "data.flip=false"])
    batch = Batches(data, config, "paired").at(0)
    plain = Batches(data, resolve("pix2pix", None, ["train.batch_size=4", "data.flip=false"]), "paired").at(0)
    assert not torch.allclose(batch["A"], plain["A"], atol=0.05)
    again = recolour(plain["B"], 0.4, _rng_after_crop(config, 4))
    torch.testing.assert_close(batch["B"], again)
    torch.testing.assert_close(batch["A"], recolour(plain["A"], 0.4, _rng_after_crop(config, 4)))


def _rng_after_crop(config, count):
    rng = torch.Generator().manual_seed(batches._seed(config.train.seed, "pair", 0))
    crop_flip(torch.zeros(count, 3, 32, 32), (32, 32), False, rng)
    return rng


def test_shifts_and_holes_are_what_they_say():
    torch.manual_seed(0)
    x = torch.arange(1.0, 257.0).view(1, 1, 16, 16).expand(200, -1, -1, -1)
    moved, kinds = shifted(x), set()
    for one in moved[:, 0]:
        y, column = (int(v) for v in (one > 0).nonzero()[0])
        down, across = divmod(int(one[y, column]) - 1, 16)
        kinds.add((y - down, column - across))
        wanted = torch.zeros(20, 20)
        wanted[2 + y - down :, 2 + column - across :][:16, :16] = x[0, 0]
        assert torch.equal(one, wanted[2:18, 2:18])
    assert {dy for dy, _ in kinds} == {dx for _, dx in kinds} == {-2, -1, 0, 1, 2}
    holes = holed(torch.ones(400, 1, 16, 16))[:, 0] == 0
    sizes = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in holes]
    assert all(int(one.sum()) == h * w for one, (h, w) in zip(holes, sizes, strict=True))
    assert {max(size) for size in sizes} == {4, 5, 6, 7, 8}
    assert max(sizes) == (8, 8)


def test_discriminators_see_changed_pictures_and_generators_learn_through_them():
    torch.manual_seed(0)
    net = build(resolve("pix2pix", None, [*TINY["pix2pix"], "model.diff_augment=true"]).model)
    d, seen = net.discriminators["B"], []
    d.scales[0][0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    real, condition = torch.rand(2, 3, 32, 32).requires_grad_(), torch.rand(2, 3, 32, 32)
    for _ in range(2):
        d(real, condition).logits[0].sum().backward()
    assert not torch.equal(*seen)
    assert real.grad.abs().sum() > 0
    first, kept = seen[0][:, :3], seen[0][:, 3:]  # the condition comes first: it keeps its colours
    values = condition.flatten(1)
    for one, own in zip(first, values, strict=True):
        assert all((own - value).abs().min() < 1e-6 for value in one[one != 0][:50])
    assert not torch.isin(kept[kept != 0][:50], real.detach()).any()
    for name in ("spade", "cogan"):
        with pytest.raises(InputError, match="model.diff_augment"):
            build(resolve(name, None, [*TINY[name], "model.diff_augment=true"]).model)


def test_diversity_and_coverage_by_hand():
    answers = torch.stack([torch.full((3, 2, 2), value) for value in (-1.0, 0.0, 1.0)])
    made = answers[[0, 0, 2]] + 0.1
    assert coverage(made, answers) == pytest.approx(2 / 3)
    assert diversity(made) == pytest.approx((0 + 2 + 2) / 3)
    assert diversity(answers[:1]) == 0


def test_label_batches_keep_numbers_and_pairs(marked):
    folder = marked("labelled")
    for path in (folder / "train" / "pictures").iterdir():  # pictures that show their label in red
        labels = read_labels(folder / "train" / "labels" / path.name)
        Image.fromarray(np.repeat((labels * 40).astype(np.uint8)[..., None], 3, 2)).save(path)
    config = resolve("pix2pix", None, ["train.batch_size=3", "data.load_size=32", "data.size=16"])
    batch = Batches(folder, config, "labelled").at(0)
    assert batch["A"].shape == (3, 2, 16, 16)
    torch.testing.assert_close(batch["A"][:, :1] * 40, (batch["B"][:, :1] + 1) * 127.5, atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="distortions of label maps"):
        Batches(folder, resolve("pix2pix", None, ["data.rotate=5"]), "labelled")
