"""Several folders in one report."""

import re
import shutil
from pathlib import Path

import pytest
from result_kit import VARIANTS, about, invoke, line

from eval.bench.mini_files import load_mini
from eval.report.pictures import grid_variants
from eval.results.reading import read
from eval.results.store import Store
from eval.results.summary import differences
from freectl.errors import FreectlError, InputError


def test_folders_of_one_benchmark_join_and_others_are_refused(results_folder: Path, tmp_path: Path) -> None:
    bench = load_mini()
    for name, digest in (("more", bench.digest), ("other", "1")):
        store = Store(tmp_path / name)
        with store.locked():
            store.begin(about(bench) | {"digest": digest}, "two")
            store.append(line(bench.cases[0], "pnp", {"target": 1.0}))
    joined = read([results_folder, tmp_path / "more"])
    assert list(joined.by_variant) == [*VARIANTS, "pnp"]
    assert len(joined.shared) == 1
    result = invoke(str(results_folder), str(tmp_path / "other"), "--out", str(tmp_path / "r.html"))
    assert isinstance(result.exception, InputError)
    assert re.search(f"other' of another benchmark .mini, sha256 1.*sha256 {bench.digest[:16]}", str(result.exception))
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(InputError, match="without results"):
        read([tmp_path])


@pytest.fixture
def published(results_folder: Path, tmp_path: Path) -> Path:
    """The same results as somebody else publishes them: without pictures."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("run.json", "results.jsonl"):
        shutil.copy(results_folder / name, folder)
    return folder


def test_results_without_pictures_make_a_report_without_the_grid(
    results_folder: Path, published: Path, made: Path
) -> None:
    result = invoke(str(published))
    assert result.exit_code == 0, result.output
    text = (published / "report.html").read_text()
    assert text.count("results without their pictures") == 1
    assert "<img" not in text
    for heading in ("Summary", "Trade-off and cost", "Differences from", "By edit type"):
        assert f"<h2>{heading}" in text
    for suffix in (".csv", ".cases.csv", ".md", ".pareto.svg"):
        assert (published / "report").with_suffix(suffix).read_text() == made.with_suffix(suffix).read_text()
    (published / "pictures").mkdir()  # a folder that has pictures must have all of them
    assert isinstance(invoke(str(published)).exception, FreectlError)


def test_ones_own_results_are_compared_with_published_ones_case_by_case(published: Path, tmp_path: Path) -> None:
    bench, mine = load_mini(), tmp_path / "mine"
    store = Store(mine)
    with store.locked():
        store.begin(about(bench) | {"steps": 20}, "mine")
        for case in bench.cases[::20][:5]:
            one = line(case, "freecontrol", {"iou": 0.9})
            store.save_picture(one["picture"], case.picture())
            store.append(one)
    result = invoke(str(mine), str(published), "--columns", "iou")
    assert result.exit_code == 0, result.output
    results = read([mine, published])
    theirs = "freecontrol (published)"
    assert list(results.by_variant) == ["freecontrol", *VARIANTS[:2], theirs]
    found = differences(results, "freecontrol")[theirs]["iou"]
    assert (found.mean, found.count) == (pytest.approx(0.7 - 0.9), 5)
    assert f"| {theirs} | 12 | 0.700" in result.output
    assert grid_variants(results) == ["freecontrol"]
    text = (mine / "report.html").read_text()
    assert f"Not shown, since their folders hold no pictures: {', '.join([*VARIANTS[:2], theirs])}." in text
    assert "but the folders differ" in text
    assert "20 steps" in text


def test_parts_of_one_run_in_two_folders_are_one_variant(tmp_path: Path) -> None:
    bench = load_mini()
    folders = [tmp_path / name for name in ("one", "two", "again")]
    for folder, cases in zip(folders, (bench.cases[:2], bench.cases[2:4], bench.cases[3:5]), strict=True):
        store = Store(folder)
        with store.locked():
            store.begin(about(bench), "run")
            for case in cases:
                store.append(line(case, "pnp", {"target": 1.0}))
    assert {label: len(lines) for label, lines in read(folders).by_variant.items()} == {"pnp": 4, "pnp (again)": 2}
