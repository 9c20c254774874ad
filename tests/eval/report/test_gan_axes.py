"""Generators as one more method, and the table that sets them against training-free ones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from result_kit import about, line
from typer import Typer
from typer.testing import CliRunner

from eval.bench.mini_files import load_mini
from eval.gans import sheet
from eval.gans.given import applies, parse_styles, parse_weights
from eval.gans.method import Translator, training_of
from eval.report.axes import axes, break_even, group_of, read, spread_over_seeds, table
from eval.results.store import Store
from eval.run.gan_runner import GanRunner
from eval.run.plan import Plan
from eval.run.variants import variants
from freectl.errors import InputError

BENCH = "mini-style:noto:fluent"


def test_a_generator_is_one_more_method_and_says_what_it_cost(gan_weights: Path) -> None:
    runner = GanRunner(Translator(gan_weights, seed=3))
    case = load_mini(BENCH).cases[0]
    made, again = runner.run(case), runner.run(case)
    assert made.image.size == case.picture().size
    assert made.image.tobytes() == again.image.tobytes()
    assert made.cost["row_forwards"] == 0
    assert made.settings["training"] == {"steps": 50, "pictures": 200, "seconds": pytest.approx(200 / 4.5, abs=0.1)}
    assert training_of(gan_weights)["steps"] == 50


def test_a_generator_is_asked_for_its_direction_alone_unless_for_anything(gan_weights: Path) -> None:
    asked = tuple(variants("gan", [], [], list(parse_weights([f"p={gan_weights}"]))))
    assert [one.label for one in asked] == ["gan:p"]
    cases = load_mini().cases
    few = Plan(("mini", None, None), asked, gan_weights=(f"p={gan_weights}",), gan_styles="noto:fluent")
    assert 0 < len(few.tasks(cases)) < 20
    assert all(
        applies(few_case, ("noto", "fluent")) for few_case in cases if (few_case.key, "gan:p") in few.tasks(cases)
    )
    everything = Plan(few.bench, asked, gan_weights=few.gan_weights, gan_anything=True)
    assert len(everything.tasks(cases)) == 240
    with pytest.raises(InputError, match="--gan-styles"):
        Plan(few.bench, asked, gan_weights=few.gan_weights).check(load_mini())


def test_unusable_weights_and_styles_are_named(tmp_path: Path, gan_weights: Path) -> None:
    with pytest.raises(InputError, match="--gan-weights"):
        parse_weights([str(tmp_path)])
    with pytest.raises(InputError, match="two folders named"):
        parse_weights([str(gan_weights), str(gan_weights)])
    with pytest.raises(InputError, match="--gan-styles"):
        parse_styles("noto:noto")
    with pytest.raises(InputError, match="generator BA"):
        Translator(gan_weights, "BA")


def test_a_torn_log_and_a_record_without_generators(tmp_path: Path, gan_weights: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(gan_weights.parent, run)
    with (run / "losses.jsonl").open("a") as log:
        log.write('\n[1]\n\n{"step": 3, "pictures_per_sec')
    assert training_of(run / "weights") == training_of(gan_weights)
    config = run / "weights" / "config.json"
    record = json.loads(config.read_text())
    for lost, named in (("generators", "lists no generators"), ("model", "lacks generators, model")):
        config.write_text(json.dumps({key: value for key, value in record.items() if key != lost}))
        with pytest.raises(InputError, match=named):
            parse_weights([str(run / "weights")]) and Translator(run / "weights")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A generator and a diffusion method on the style benchmark with two seeds; the generator gives the same twice."""
    bench = load_mini(BENCH)
    rng = np.random.default_rng(0)
    made = []
    for seed in (0, 1):
        store = Store(tmp_path / f"seed{seed}")
        made.append(store.folder)
        with store.locked():
            store.begin(about(bench) | {"seed": seed}, "one")
            for case in bench.cases[:8]:
                for variant in ("gan:p", "freecontrol"):
                    one = line(case, variant, {"target": 1.0, "mse": 0.01})
                    one["method"] = variant.partition(":")[0]
                    one["cost"]["seconds"] = {"total": 0.1 if one["method"] == "gan" else 5.1, "load": 0.0}
                    one["settings"] = {"training": {"pictures": 4000, "seconds": 1000.0}} if "gan" in variant else {}
                    one["picture"] = f"pictures/{one['method']}/{case.key}.png"
                    value = 100 if one["method"] == "gan" else int(rng.integers(0, 255))
                    store.save_picture(one["picture"], Image.new("RGB", (64, 64), (value, 0, 0)))
                    store.append(one)
    return made


def test_table_has_break_even_and_spread(folders: Path) -> None:
    found = read(folders)
    own = {name: [one for one in found if one.line["variant"] == name] for name in ("gan:p", "freecontrol")}
    assert break_even(own["freecontrol"], own["gan:p"]) == pytest.approx(200)
    assert spread_over_seeds(own["gan:p"]) == (0, 2)
    spread, _ = spread_over_seeds(own["freecontrol"])
    pairs = {}
    for one in own["freecontrol"]:
        pairs.setdefault(one.case.key, []).append(one.picture.getpixel((0, 0))[0] / 255)
    assert spread == pytest.approx(np.mean([(a - b) ** 2 / 3 for a, b in pairs.values()]))
    lines = table(found, group_of(("noto", "fluent"), ["fox"])).splitlines()
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[1] == "freecontrol"
    assert "200" in cells
    assert lines[2].split("|")[-2].strip() == "0.00"


def test_kid_of_few_pictures_is_not_printed(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kids() -> list[str]:
        head, _, *rows = table(read(folders), group_of(("noto", "fluent"), ["fox"])).splitlines()
        column = [cell.strip() for cell in head.split("|")].index("KID x10³")
        return [row.split("|")[column].strip() for row in rows]

    assert kids() == ["-", "-"]
    monkeypatch.setattr("eval.report.axes.FEWEST", 8)
    assert all(float(text) > 0 for text in kids())


def test_quality_is_that_of_the_cases_that_all_variants_have(folders: Path, tmp_path: Path) -> None:
    before = table(read(folders), group_of(("noto", "fluent"), ["fox"]))
    bench = load_mini(BENCH)
    store = Store(tmp_path / "more")
    with store.locked():
        store.begin(about(bench) | {"seed": 0}, "one")
        for case in bench.cases[8:12]:
            store.append(line(case, "freecontrol", {"target": 1.0, "mse": 0.9}))
    after = table(read([*folders, store.folder]), group_of(("noto", "fluent"), ["fox"]))
    assert [row.split("|")[-6:] for row in after.splitlines()] == [row.split("|")[-6:] for row in before.splitlines()]
    assert before != after  # the new cases count where they are listed with their number


def test_cases_of_one_name_and_other_scenes_are_no_seeds_of_each_other(folders: Path, tmp_path: Path) -> None:
    own = [one for one in read(folders) if one.line["variant"] == "freecontrol" and one.seed == 0]
    other = load_mini("mini:1").cases[0]
    strangers = [replace(own[0], case=replace(other, key=own[0].case.key), seed=1)]
    assert spread_over_seeds([*own, *strangers])[0] is None


def test_command_prints_chosen_variants_and_names_unknown_ones(folders: Path) -> None:
    app = Typer()
    app.command()(axes)
    places = [str(folder) for folder in folders]
    result = CliRunner().invoke(app, [*places, "--variants", "freecontrol"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 3
    result = CliRunner().invoke(app, [*places, "--variants", "nobody"])
    assert isinstance(result.exception, InputError)


def test_groups_tell_what_a_generator_was_trained_for() -> None:
    group = group_of(("noto", "fluent"), ["fox"])
    style = load_mini(BENCH).cases
    assert {group(case) for case in style} == {"trained", "unseen"}
    assert all((group(case) == "unseen") == (case.scenes[0].object == "fox") for case in style)
    kinds = {case.kind: group(case) for case in load_mini().cases if case.scenes[0].style != "noto"}
    assert kinds == {
        "object": "object", "style": "style", "background": "background",
        "object+style": None, "object+background": None, "all": None,
    }  # fmt: skip


def test_unseen_objects_that_the_domain_does_not_have_are_named_before_anything_is_read(tmp_path: Path) -> None:
    app = Typer()
    app.command()(axes)
    result = CliRunner().invoke(app, [str(tmp_path / "nowhere"), "--unseen", "cat,unicorn"])
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert "--unseen" in str(result.exception)
    assert "unicorn" in str(result.exception)


def test_the_sheet_shows_inputs_translations_answers_and_the_way_back(tmp_path: Path) -> None:
    app = Typer()
    app.command()(sheet.main)
    weights, out = "cyclegan-noto-fluent", tmp_path / "sheet.png"
    result = CliRunner().invoke(app, ["--gan-weights", weights, "--output", str(out)])
    assert result.exit_code == 0, result.output
    known, unseen = sheet.chosen(22, "noto", ["fox", "koala", "pumpkin"])
    assert len({scene.object for scene in known}) == len(known) == sheet.KNOWN
    assert {scene.object for scene in unseen} <= {"fox", "koala", "pumpkin"}
    picture = Image.open(out)
    assert picture.size == (14 * 66 - 2 + sheet.BETWEEN, 4 * 66 - 2)

    def cell(x: int, y: int) -> Image.Image:
        left = x * 66 + (sheet.BETWEEN if x >= len(known) else 0)
        return picture.crop((left, y * 66, left + 64, y * 66 + 64))

    there, back = Translator(weights, "AB"), Translator(weights, "BA")
    for x in (0, 13):
        assert there(cell(x, 0)).tobytes() == cell(x, 1).tobytes()
        assert back(cell(x, 1)).tobytes() == cell(x, 3).tobytes()
        assert cell(x, 2).tobytes() not in (cell(x, 0).tobytes(), cell(x, 1).tobytes())


@pytest.mark.parametrize(("output", "styles", "named"), [
    ("sheet.doc", "noto:fluent", "--output"), ("sheet.png", "noto:noto", "--gan-styles")])  # fmt: skip
def test_a_sheet_that_cannot_be_made_is_refused(tmp_path: Path, output: str, styles: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        sheet.main("cyclegan-noto-fluent", tmp_path / output, styles)
    assert not list(tmp_path.iterdir())
