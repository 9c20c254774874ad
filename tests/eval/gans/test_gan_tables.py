"""The papers' own tables from finished runs: each measure against its definition, and two tiny trained runs of each."""

import json
import sys
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score, mutual_info_score, recall_score

from eval.command import guarded
from eval.gans import codes, maps, runs, scored, tables, tasks
from eval.gans.finished import Finished
from freectl.mini.domain import OBJECTS
from gan_baselines.config import layout_of
from gan_baselines.data.complete import completed
from gan_baselines.data.folders import find_sources
from gan_baselines.data.pictures import to_range, to_tensor
from gan_baselines.losses import realness
from gan_baselines.models import build
from gan_baselines.networks import PatchDiscriminator
from gan_baselines.settings import resolve
from gan_baselines.training.run import train
from gan_baselines.weights import load_discriminators, load_weights, save_weights

PLAN = yaml.safe_load(runs.RUNS.read_text())
PAPERS = yaml.safe_load(tables.PUBLISHED.read_text())
FAST = ["train.steps=2", "train.cpu=true", "train.threads=1", "train.tracker=none", "train.precision=fp32",
        "train.log_every=1", "train.sample_every=2", "train.checkpoint_every=2", "train.ema=0"]  # fmt: skip
SMALL_NET = ["model.discriminator.width=8", "model.generator.width=8"]
SMALL = {
    "pix2pix": SMALL_NET,
    "cyclegan": [*SMALL_NET, "model.generator.blocks=1"],
    "modified-cyclegan": [*SMALL_NET, "model.generator.blocks=1"],
    "discogan": ["model.width=4", "train.batch_size=2"],
    "infogan": ["model.width=4", "model.categories=3", "train.batch_size=2"],
    "spade": ["model.width=4", "model.hidden=4", "model.discriminator.width=4"],
    "pix2pixhd": ["model.width=4", "model.blocks=1", "model.fine_blocks=1", "model.discriminator.width=4"],
    "stackgan": ["model.width=4", "model.condition=4", "model.text=4", "train.batch_size=4"],
    "adain": ["model.features.width=4", "model.features_from=random", "train.batch_size=2"],
}
TRAINED = ["map-l1", "map-cyclegan", "photo-pix2pix", "batch-norm-1", "group-norm-16", "cyclegan", "modified-cyclegan"]
BUILT = ["discogan", "infogan", "pix2pixhd", "spade", "stackgan-1", "adain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps on thirty scenes, as `eval.gan_runs` leaves them, and untrained weights of the other models."""
    out = tmp_path_factory.mktemp("gan_tables")
    plan = {**PLAN, "data": PLAN["data"] | {"scenes": 30, "test_objects": ["cat", "dog", "bear"]}}
    data = tasks.make_data(out, plan, {tasks.task_of(name, PLAN) for name in (*TRAINED, *BUILT)})
    for name in (*TRAINED, *BUILT):
        model, pictures = PLAN["runs"][name][0], data[tasks.task_of(name, PLAN)]
        sets = [*runs.settings_of(name, PLAN, out, 0, 1.0), *SMALL[model], *FAST]
        if name in TRAINED:
            train(model, pictures, out / name, sets=sets)
            continue
        config = resolve(model, None, sets)
        net = build(completed(config, find_sources(pictures, layout_of(model))).model)
        parts = {"generators": dict(net.generators), "helpers": {one: net.helpers[one] for one in net.carried}}
        save_weights(out / name / "weights", net.config, **parts, translators=sorted(net.translators),
                     about={"steps": 0, "height": 64})  # fmt: skip
    return out


def finished(folder: Path, name: str, limit: int = 3) -> Finished:
    task = tasks.task_of(name, PLAN)
    return Finished(folder / name, folder / "data" / task, folder / "data" / tasks.scenes_of(task), limit)


def test_painted_maps_are_read_back_and_lie_beside_their_pictures(folder: Path) -> None:
    labelled, names = folder / "data" / "labelled", maps.class_names(folder / "data" / "labelled")
    for path in sorted((labelled / "test" / "labels").iterdir()):
        labels = torch.from_numpy(np.asarray(Image.open(path)).astype(np.int64))
        for place in ("maps-paired/test/A", "maps-unpaired/testA", "photos-paired/test/B"):
            picture = to_range(to_tensor(Image.open(folder / "data" / place / path.name).convert("RGB")))
            assert torch.equal(maps.unpainted(picture, len(names)), labels)
        own = maps.as_judged(labels, names)
        known = {names[label] for label in labels.unique()}
        wanted = {1 + list(OBJECTS).index(name) if name in OBJECTS else 0 for name in known}
        assert set(own.unique().tolist()) == wanted
        assert torch.equal(own, scored.truth(folder / "data" / "drawn", [path])[0])
        beside = (folder / "data" / "maps-paired" / "test" / "B" / path.name).read_bytes()
        assert beside == (labelled / "test" / "pictures" / path.name).read_bytes()
    sides = [{p.name for p in (folder / "data" / "maps-unpaired" / f"train{side}").iterdir()} for side in "AB"]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {path.name for path in (labelled / "train" / "labels").iterdir()}


def test_label_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    found, wanted = (rng.integers(0, 17, (3, 8, 8)) for _ in range(2))
    scores = scored.compared(torch.from_numpy(found), torch.from_numpy(wanted))
    a, b = wanted.ravel(), found.ravel()
    assert scores["per_pixel"] == pytest.approx(accuracy_score(a, b))
    assert scores["per_class"] == pytest.approx(recall_score(a, b, average="macro"))
    assert scores["class_iou"] == pytest.approx(jaccard_score(a, b, average="macro"))


def test_true_pictures_have_their_labels_and_runs_of_two_steps_do_not(folder: Path) -> None:
    for name in ("map-l1", "map-cyclegan", "pix2pixhd", "discogan"):
        run = finished(folder, name)
        true, own = scored.rivals(run)["true pictures"], scored.label_scores(run)
        assert true["per_pixel"] > 0.9
        assert own["per_class"] < true["per_class"]
        assert 0 < own["modes"] <= 3
        assert ("label_per_pixel" in own) == (name == "map-cyclegan")
    back = scored.label_scores(finished(folder, "photo-pix2pix"))
    assert set(back) == {"label_per_pixel", "label_per_class", "label_class_iou"}


def test_discriminators_are_asked_as_in_training(folder: Path) -> None:
    """Batch norm with the batch's statistics, whose size is the training's; scores by hand for a run without noise."""
    assert scored.discriminator_scores(finished(folder, "map-l1")) == {}
    for name, side, size in (("batch-norm-1", "b", 1), ("group-norm-16", "b", 16), ("cyclegan", "a", 1)):
        run, net = finished(folder, name), load_weights(folder / name / "weights")
        load_discriminators(net.network.discriminators, folder / name / "weights")
        for part in net.network.modules():  # dropout off: the other side of the comparison draws nothing
            part.train(not isinstance(part, torch.nn.Dropout))
        found = scored.discriminator_scores(run)
        pictures = {s: torch.stack([scored.read_tensor(p) for p in run.test(s.upper())]) for s in "ab"}
        judge: PatchDiscriminator = net.network.discriminators[side.upper()]
        batches = list(zip(pictures["a"].split(size), pictures["b"].split(size), strict=True))
        extra = [(a,) if name != "cyclegan" else () for a, _ in batches]
        real = [realness(net.model.loss, judge(dict(zip("ab", pair, strict=True))[side], *more).logits)
                for pair, more in zip(batches, extra, strict=True)]  # fmt: skip
        key = "a_real" if name == "cyclegan" else "d_real"
        assert found[key] == pytest.approx(torch.cat(real).mean().item(), abs=1e-5)
    back = net.network.generators["BA"]
    with torch.no_grad():
        fake = [realness(net.model.loss, judge(back(b)).logits) for _, b in batches]
    assert found["a_fake"] == pytest.approx(torch.cat(fake).mean().item(), abs=1e-5)
    assert found["h_fake"] + found["h_real"] == pytest.approx(1)
    assert found["h_real"] == pytest.approx(found["a_real"] / (found["a_real"] + found["a_fake"]))


def test_information_and_assignment_of_counts() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 4, 500), rng.integers(0, 6, 500)
    joint = torch.zeros(4, 6)
    for i, j in zip(first, second, strict=True):
        joint[i, j] += 1
    assert codes.information(joint) == pytest.approx(mutual_info_score(first, second), abs=1e-9)
    moved = 5 * torch.eye(4)[torch.tensor([2, 0, 3, 1])]
    assert codes.information(moved) == pytest.approx(log(4))
    assert codes.assigned(moved) == 1
    assert codes.assigned(torch.ones(4, 4)) == pytest.approx(1 / 4)
    assert codes.information(torch.ones(4, 4)) == pytest.approx(0)


def test_what_codes_words_and_single_labels_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "DRAWN", 3)
    found = codes.code_scores(finished(folder, "infogan"))
    assert 0 <= found["information"] <= log(3)
    assert 1 / 3 <= found["code_accuracy"] <= 1
    words = codes.caption_scores(finished(folder, "stackgan-1"))
    assert words["caption_diversity"] > 1e-6
    assert 0 <= words["words_right"] <= 1
    # instance norm takes away what a mirrored constant stays in a convolution; SPADE reads the map behind its norm
    single = {name: codes.one_label_scores(finished(folder, name))["one_label"] for name in ("pix2pixhd", "spade")}
    assert single["pix2pixhd"] == pytest.approx(0, abs=1e-6)
    assert single["spade"] > 0.01
    styled = codes.style_scores(finished(folder, "adain"), "fluent")
    assert set(styled) == {"style", "object", "content_l1"}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gan_tables", *arguments])
        with pytest.raises(SystemExit) as stop:
            guarded(tables.main)
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


def test_the_command_makes_the_tables_once_and_keeps_the_scores(
    folder: Path, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--runs", str(folder), "--limit", "2", "--table", "pix2pix-losses", "--table", "better-cycles",
             "--table", "photo-to-labels", "--table", "group-norm")  # fmt: skip
    code, out, err = shown(*asked)
    assert (code, err) == (0, "")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in out.splitlines()
            if line.startswith("|")}  # fmt: skip
    assert rows["map-l1"][-3:] == ["0.42", "0.15", "0.11"]
    assert rows["(true pictures)"][-3:] == ["0.8", "0.26", "0.21"]
    assert rows["modified-cyclegan"][-3:] == ["1.72", "0.295", "0.705"]
    assert rows["photo-pix2pix"][-3:] == ["0.85", "0.4", "0.32"]
    assert rows["batch-norm-1"][-4:] == ["-"] * 4
    assert rows["group-norm-16"][-4:] == ["1.175", "9.833", "0.02", "0.98"]
    assert "map-cgan" not in rows
    kept = json.loads((folder / "scores.json").read_text())
    assert float(rows["cyclegan"][1]) == pytest.approx(kept["cyclegan"]["scores"]["h_fake"], abs=1e-3)
    assert float(rows["map-l1"][1]) == pytest.approx(kept["map-l1"]["scores"]["per_pixel"], abs=1e-3)
    monkeypatch.setattr("eval.gans.scored.scores_of", lambda *_: pytest.fail("measured again"))
    assert shown(*asked) == (0, out, "")


def test_what_is_not_there_is_said_in_a_line(folder: Path, shown: Any, tmp_path: Path) -> None:
    code, out, err = shown("--runs", str(tmp_path), "--table", "munit")
    assert (code, out) == (2, "")
    assert "--runs: found" in err
    assert "without a finished run of munit" in err
    code, _, err = shown("--runs", str(folder), "--table", "none")
    assert code == 2
    assert "--table: found 'none'; allowed: pix2pix-losses, " in err


def test_every_planned_table_names_runs_and_published_rows_that_exist() -> None:
    for name, table in PLAN["tables"].items():
        assert all(kind in PLAN["runs"] or kind == "(true pictures)" for kind in table["rows"]), name
        assert set(table["columns"]) <= set(tables.TITLES), name
        rows, _, _ = tables._published(table, PAPERS)
        assert {row for row in table["rows"].values() if row is not None} <= set(rows), name
    grouped = {PLAN["runs"][kind][1] for table in PLAN["tables"].values() for kind in table["rows"] if kind[0] != "("}
    assert {run[1] for run in PLAN["runs"].values()} - grouped <= {"features", "long", "losses", "networks"}


def test_a_group_brings_the_runs_that_it_starts_from_and_killed_data_is_made_again(tmp_path: Path) -> None:
    assert runs.with_sources(["simgan", "feature-gan", "dtn"], PLAN) == ["simgan", "features", "feature-gan", "dtn"]
    assert runs.with_sources(["stackgan-2"], PLAN) == ["stackgan-1", "stackgan-2"]
    plan = {**PLAN, "data": PLAN["data"] | {"scenes": 12}}
    left = tmp_path / "data" / "sources.partial" / "train"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"")
    made = tasks.make_data(tmp_path, plan, {"sources"})["sources"]
    assert not (tmp_path / "data" / "sources.partial").exists()
    assert not (made / "train" / "half.png").exists()
    assert sum(1 for path in made.rglob("*.png")) == 12
