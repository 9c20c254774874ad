"""The table that sets generators against training-free methods."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from result_kit import about, line
from typer import Typer
from typer.testing import CliRunner

from eval.bench.mini_files import load_mini
from eval.report.axes import axes
from eval.report.axes_lines import group_of, read
from eval.report.axes_table import break_even, spread_over_seeds, table
from eval.results.store import Store
from freectl.errors import InputError

BENCH = "mini-style:noto:fluent"


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
    monkeypatch.setattr("eval.report.axes_table.FEWEST", 8)
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
