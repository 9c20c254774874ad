"""The report: numbers of its tables, one self-contained file, how it looks in a real browser."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import browser, layout_faults, needs_chromium
from result_kit import VARIANTS, about, line
from scipy.stats import binomtest
from typer import Typer
from typer.testing import CliRunner

from eval.bench.mini_files import load_mini
from eval.files import write_text
from eval.report.command import published_for, report
from eval.report.overview import best_variants
from eval.report.page import page
from eval.report.pictures import grid_variants
from eval.report.plots import curves, pareto_svg, without_outliers
from eval.report.svg import Point, axis
from eval.results.reading import Results, read
from eval.results.store import Store
from eval.results.summary import differences, summary
from eval.scores.intervals import difference, estimate, share, share_difference
from freectl.errors import FreectlError, InputError


def invoke(*arguments: str):
    app = Typer()
    app.command()(report)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def made(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("report") / "report.html"
    result = invoke(str(results_folder), "--out", str(target))
    assert result.exit_code == 0, result.output
    return target


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = sum((e := estimate(rng.normal(3, 2, 40).tolist())).low <= 3 <= e.high for _ in range(200))
    assert 0.88 <= held / 200 <= 0.99
    assert estimate([5.0]).low == estimate([5.0]).high == 5
    with pytest.raises(ValueError, match="no values"):
        estimate([])


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 10), (20, 20), (48, 48), (1, 1)])
def test_a_shares_interval_is_wilsons(hits: int, count: int) -> None:
    found = share([1.0] * hits + [0.0] * (count - hits))
    oracle = binomtest(hits, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-6)
    assert (found.mean, found.count) == (hits / count, count)
    with pytest.raises(ValueError, match="no values"):
        share([])


def test_differences_are_taken_case_by_case() -> None:
    base = np.linspace(0, 100, 30)
    ours = base + 1 + np.tile([0.1, -0.1], 15)
    found = difference(list(ours), list(base))
    assert found.mean == pytest.approx(1)
    assert found.clear_of_zero
    assert found.high - found.low < 0.2
    with pytest.raises(ValueError, match="zip"):
        difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize("count", [240, 1000])
@pytest.mark.parametrize("hits", [0, 1, 3, 4, 5, 6, 7, 9, 12])
def test_a_difference_of_shares_is_clear_where_mcnemars_exact_test_says_so(hits: int, count: int) -> None:
    ours, base = [1.0] * count, [0.0] * hits + [1.0] * (count - hits)
    found, back = share_difference(ours, base), share_difference(base, ours)
    significant = hits > 0 and binomtest(hits, hits, 0.5).pvalue < 0.05
    assert found.clear_of_zero == significant
    assert (found.mean, -back.mean) == pytest.approx((hits / count, hits / count))
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low))
    assert found.low < found.high


def test_the_interval_of_a_difference_of_shares_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        both, ours, base = (rng.random(40) < p for p in (0.8, 0.9, 0.7))
        found = share_difference(list((both & ours).astype(float)), list((both & base).astype(float)))
        held += found.low <= 0.8 * 0.2 <= found.high
    assert 0.93 <= held / 400 <= 0.99


def test_one_case_decides_nothing() -> None:
    assert not difference([2.0], [1.0]).clear_of_zero
    assert not share_difference([1.0], [0.0]).clear_of_zero


def test_scores_of_several_networks_and_missing_ones_are_told(tmp_path: Path) -> None:
    bench, store = load_mini(), Store(tmp_path)
    store.write_about({"format": "freectl-eval/1", "commands": [], **about(bench)})
    for index, case in enumerate(bench.cases[:3]):
        for variant, score in (("sdedit", 0.5), ("freecontrol", None if index else 0.5)):
            own = {"networks": {"CLIP": "B/32" if variant == "sdedit" else "L/14"}}
            store.append(line(case, variant, {"clip": score, "target": 1.0}) | own)
    results = read([tmp_path])
    text = page(results, baseline=None, rows=0, published=None)
    assert "CLIP: B/32 (sdedit) and L/14 (freecontrol), which do not compare" in text
    assert "CLIP: 1 of freecontrol." in text
    assert "of sdedit" not in text
    assert "Trade-off and cost" in text
    for variant in results.by_variant.values():
        for one in variant.values():
            one["scores"] = dict.fromkeys(one["scores"])
    bare = page(Results("mini", results.abouts, results.by_variant), baseline=None, rows=0, published=None)
    assert "Trade-off and cost" not in bare


def test_tables_hold_the_means_of_the_lines(results_folder: Path, made: Path) -> None:
    results = read([results_folder])
    rows = {row["variant"]: row for row in csv.DictReader(io.StringIO(made.with_suffix(".csv").read_text()))}
    assert list(rows) == list(VARIANTS)
    for variant, lines in results.by_variant.items():
        mean = np.mean([one["scores"]["target"] for one in lines.values()])
        assert float(rows[variant]["target"]) == pytest.approx(mean)
        assert float(rows[variant]["target_low"]) <= mean <= float(rows[variant]["target_high"])
        assert float(rows[variant]["seconds"]) == 2.0
        assert f"{100 * mean:.1f}" in made.with_suffix(".md").read_text()
    cases = list(csv.DictReader(io.StringIO(made.with_suffix(".cases.csv").read_text())))
    assert len(cases) == 36
    found = differences(results, VARIANTS[0])[VARIANTS[2]]["iou"]
    assert (found.mean, found.count) == (pytest.approx(0.2), 12)


def test_a_default_takes_its_place_among_the_swept_values_of_its_curve(tmp_path: Path) -> None:
    bench = load_mini()
    store = Store(tmp_path)
    with store.locked():
        store.begin(about(bench), "one")
        for variant, weight in (("a", 100.0), ("a[weight=200]", 200.0), ("a[weight=50]", 50.0)):
            made = line(bench.cases[0], variant, {"target": weight / 200})
            store.append(made | {"settings": {"weight": weight}})
    (drawn,) = curves(summary(read([tmp_path])), lambda row: Point(row.scores["target"].mean, 0))
    assert [point.x for point in drawn.points] == [0.25, 0.5, 1.0]


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


def test_page_is_one_file_and_shows_words_as_words(made: Path) -> None:
    text = made.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert re.findall(r"<script[^>]*>", text) == ["<script>"]
    assert "a &lt;processor&gt;" in text
    assert "a &lt;word&gt;" in text
    assert "python -m eval.run --bench mini" in text
    assert text.count("<polyline") >= 1


def made_up(folder: Path, scores: dict[str, list[float]], key: str = "iou", **run: object) -> Path:
    """Results of the benchmark's first cases by variant."""
    bench, store = load_mini(), Store(folder)
    with store.locked():
        store.begin(about(bench) | run, "made up")
        for variant, values in scores.items():
            for case, value in zip(bench.cases, values, strict=False):
                store.append(line(case, variant, {key: value}) | run)
    return folder


def test_best_is_said_of_rows_with_the_same_cases_and_steps_only(tmp_path: Path) -> None:
    one = made_up(tmp_path / "one", {"a": [0.5, 0.6], "b": [0.4, 0.6], "part": [0.9]})
    other = made_up(tmp_path / "other", {"c": [0.8, 0.9], "d": [0.8, 0.8]}, steps=200)
    lone = made_up(tmp_path / "lone", {"e": [1.0, 1.0]}, steps=999)
    results = read([one, other, lone])
    (iou,) = results.measured
    assert best_variants(results, summary(results), iou) == {"a", "c"}
    lower = replace(iou, better=-1)
    assert best_variants(results, summary(results), lower) == {"b", "d"}
    assert best_variants(results, summary(results), replace(iou, better=0)) == set()
    text = page(results, baseline=None, rows=0, published=None)
    assert text.count('<td class="best">') == 2
    assert "of the same cases and steps" in text
    assert ">steps</th>" in text
    alone = page(read([lone]), baseline=None, rows=0, published=None)
    assert 'class="best"' not in alone
    assert "of the same cases" not in alone
    assert ">steps</th>" not in alone


def test_kid_and_fid_of_few_pictures_are_not_printed(tmp_path: Path) -> None:
    made_up(tmp_path, {"a": [0.5, 0.6], "b": [0.4, 0.6]})

    def text(**counts: int) -> str:
        rows = {
            name: {"count": n, "kid": 0.12345, "fid": 67.8, "cmmd": 1.25, "coverage": 0.5} for name, n in counts.items()
        }
        found = {"variants": rows, "reference": "exact answers", "networks": {}, "notes": []}
        Store(tmp_path).write_text("sets.json", json.dumps(found))
        return page(read([tmp_path]), baseline=None, rows=0, published=None)

    few, mixed, many = text(a=49, b=48), text(a=50, b=49), text(a=50, b=60)
    assert ("123.45" in few, mixed.count("123.45"), many.count("123.45")) == (False, 1, 2)
    assert ("67.8" in few, mixed.count("67.8"), many.count("67.8")) == (False, 1, 2)
    assert "KID x10³" not in few
    assert few.count("1.250") == many.count("1.250") == 2
    told = "of fewer than 50 pictures are not printed"
    assert [told in one for one in (few, mixed, many)] == [True, True, False]


def test_one_failure_does_not_squeeze_a_plot_but_is_named(tmp_path: Path) -> None:
    assert without_outliers([1.0] * 9 + [40.0]) == [1.0] * 9
    assert without_outliers([1.0, 1.0, 40.0, 50.0]) == [1.0, 1.0, 40.0, 50.0]
    bench = load_mini()
    store = Store(tmp_path)
    with store.locked():
        store.begin(about(bench), "one")
        for index in range(9):
            made = line(bench.cases[0], f"m{index}", {"target": 1.0, "mse": 0.5 if index == 8 else 0.02 + index / 1e3})
            store.append(made)
    text = pareto_svg(read([tmp_path]))
    assert text is not None
    assert "on the right edge, beyond it: 500" in text


def test_plot_is_also_a_file_of_its_own(made: Path) -> None:
    from xml.etree import ElementTree

    tree = ElementTree.parse(made.with_suffix(".pareto.svg"))
    space = "{http://www.w3.org/2000/svg}"
    assert tree.getroot().tag == f"{space}svg"
    words = {element.text for element in tree.iter(f"{space}text")}
    assert {"sdedit", "freecontrol"} <= words
    assert any(word and word.startswith("target reached") for word in words)


def test_other_scores_can_be_plotted(results_folder: Path, tmp_path: Path) -> None:
    report([results_folder], out=tmp_path / "r.html", plot="all_right,mse")
    drawn = (tmp_path / "r.pareto.svg").read_text()
    assert "all right % ↑" in drawn
    assert "MSE x10³ (lower is nearer to the exact answer)" in drawn
    for odd in ("all_right", "all_right,no", "mse,iou,target"):
        with pytest.raises(InputError, match="--plot"):
            report([results_folder], out=tmp_path / "other.html", plot=odd)
    assert not (tmp_path / "other.html").exists()


def test_markdown_can_have_some_columns_only(results_folder: Path, tmp_path: Path) -> None:
    result = invoke(str(results_folder), "--out", str(tmp_path / "r.html"), "--columns", "iou,seconds")
    head, _, *rows = (tmp_path / "r.md").read_text().splitlines()
    assert head == "| variant | cases | IoU ↑ | s / edit ↓ |"
    assert len(rows) == 3
    assert rows[2] == "| freecontrol | 12 | 0.700 ± 0.000 | 2.00 |"
    assert result.output.startswith(head)


def test_a_share_of_all_cases_is_not_printed_as_certain(tmp_path: Path) -> None:
    bench, store = load_mini(), Store(tmp_path)
    with store.locked():
        store.begin(about(bench), "one")
        for case in bench.cases[::5]:
            made = line(case, "a", {"target": 1.0, "mse": 0.01})
            store.save_picture(made["picture"], case.picture())
            store.append(made)
    result = invoke(str(tmp_path), "--columns", "target,mse")
    assert "| a | 48 | 100.0 (92.6 to 100.0) | 10.0 ± 0.0 |" in result.output
    (row,) = csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text()))
    assert float(row["target_low"]) == pytest.approx(binomtest(48, 48).proportion_ci(method="wilson").low, abs=1e-6)
    text = (tmp_path / "report.html").read_text()
    assert "92.6 to 100.0" in text
    assert text.count("67.6 to 100.0") == 6  # eight cases of each edit type
    assert differences(read([tmp_path]), "a") == {}


def test_unknown_baselines_and_wrong_targets_are_named(results_folder: Path, tmp_path: Path) -> None:
    for arguments, text in (
        (["--baseline", "nobody"], "--baseline"),
        (["--columns", "taste"], "--columns"),
        (["--out", str(tmp_path / "no" / "x.html")], "--out"),
        (["--out", str(tmp_path / "x.txt")], "--out"),
    ):
        result = invoke(str(results_folder), *arguments)
        assert isinstance(result.exception, InputError)
        assert text in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_one_line_that_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(FreectlError, match="--folder: could not write .*taken"):
        write_text(tmp_path / "taken", "text", "--folder")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_published_numbers_stand_below_ours_in_their_columns(tmp_path: Path) -> None:
    bench = load_mini()
    store = Store(tmp_path)
    scores = {"structure_x1e3": 12.34, "psnr": 27.0, "lpips_x1e3": None, "mse_x1e4": 30.0}
    scores |= {"ssim_x1e2": 84.0, "clip_whole": 25.0, "clip_edited": 22.0}
    with store.locked():
        store.begin(about(bench) | {"bench": "pie", "layout": "pie"}, "one")
        for case in bench.cases[:2]:
            made = line(case, "p2p", scores)
            store.save_picture(made["picture"], case.picture())
            store.append(made)
    text = page(read([tmp_path]), baseline=None, rows=1, published=published_for("pie"))
    assert text.index("this run") < text.index("Direct + P2P")
    assert "12.34" in text
    assert "49.22 (U)" in text
    assert "Ju et al., PnPInversion" in text
    assert "secondary" in text


def test_the_picture_grid_shows_every_method_whatever_is_swept(tmp_path: Path) -> None:
    bench = load_mini()
    store = Store(tmp_path)
    swept = [f"[w={value}]" for value in range(3)]
    variants = ["a:best", "a", *(f"a{text}" for text in swept), *(f"b{text}" for text in swept)]
    variants += [f"a:{index}" for index in range(20)] + ["c"]
    with store.locked():
        store.begin(about(bench), "one")
        for variant in variants:
            name, _, preset = variant.partition("[")[0].partition(":")
            made = line(bench.cases[0], variant, {"target": float(variant in ("b[w=1]", "a[w=2]"))})
            store.save_picture(made["picture"], bench.cases[0].picture())
            store.append(made | {"method": name, "preset": preset or "default"})
    shown = grid_variants(read([tmp_path]))
    assert shown[:4] == ["a", "b[w=1]", "c", "a:best"]
    assert len(shown) == len(set(shown)) == 16


def test_a_lost_or_damaged_picture_is_one_line(tmp_path: Path) -> None:
    bench, store = load_mini(), Store(tmp_path)
    with store.locked():
        store.begin(about(bench), "one")
        made = line(bench.cases[0], "a", {"target": 1.0})
        store.append(made)
    for spoil in (lambda path: None, lambda path: path.write_bytes(b"no picture")):
        picture = tmp_path / made["picture"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        spoil(picture)
        result = invoke(str(tmp_path))
        assert isinstance(result.exception, FreectlError)
        assert str(picture) in str(result.exception)
        assert not (tmp_path / "report.html").exists()


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


@pytest.mark.parametrize("values", [[0.5], [0.0, 1e-9], [-3.0, 1000.0], [0.2, 0.2]])
def test_axes_hold_their_values_with_two_ticks_or_more(values: list[float]) -> None:
    for log in (False, True):
        if not log or min(values) > 0:
            drawn = axis("x", values, log=log)
            assert all(0 <= drawn.place(value) <= 1 for value in values)
            assert len(drawn.ticks()) >= 2


@needs_chromium
def test_report_in_a_real_browser(made: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        for width in (1280, 400):
            tab.open(made, width)
            assert layout_faults(tab) == []
            assert tab.run("document.images.length") > 3 * len(VARIANTS)
            cells = "[...document.querySelectorAll('td:first-child')]"
            widest = tab.run(f"Math.max(...{cells}.map(c => c.getBoundingClientRect().width))")
            assert 80 < widest < width / 2  # it stays in view: the numbers must fit beside it
            assert tab.run("[...document.querySelectorAll('svg[role]')].every(s => s.getBoundingClientRect().height)")
            plots = "[...document.querySelectorAll('.plot svg[role]')]"
            assert tab.run(f"Math.max(...{plots}.map(s => s.getBoundingClientRect().right))") <= width
        assert tab.errors == []


@needs_chromium
def test_wide_tables_say_that_they_scroll_and_sort_by_their_headings(made: Path, tmp_path: Path) -> None:
    first = "document.querySelector('table.sorts')"
    names = f"[...{first}.tBodies[0].rows].map(r => r.cells[0].textContent)"
    head = f"[...{first}.tHead.rows[0].cells].find(c => c.textContent.startsWith('WHICH'))"
    with browser(tmp_path / "profile") as tab:
        for width, wide in ((2400, False), (400, True)):
            tab.open(made, width)
            box = f"{first}.closest('.box')"
            assert tab.run(f"getComputedStyle({box}, '::before').content.includes('scrolls')") == wide
            assert tab.run(f"getComputedStyle({box}, '::after').width") == ("22px" if wide else "auto")
        tab.run(f"{box}.firstElementChild.scrollLeft = 1e6")
        tab.wait(f"getComputedStyle({box}, '::after').width === 'auto'")  # the end: nothing more on the right
        given = tab.run(names)
        assert given == list(VARIANTS)
        for which, ranked in (("IoU", given[::-1]), ("MSE", given), ("variant", sorted(given))):
            orders = []
            for _ in range(3):
                tab.run(f"{head.replace('WHICH', which)}.querySelector('button').click()")
                orders.append(tab.run(names))
            assert orders == [ranked, ranked[::-1], given]
            assert tab.run(f"{head.replace('WHICH', which)}.hasAttribute('aria-sort')") is False
        assert tab.errors == []


@needs_chromium
def test_the_browser_test_sees_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><div style='width:2000px'>x</div><img alt='lost' src='data:image/png;base64,AAAA'>"
        "<script>nothing()</script>"
    )
    with browser(tmp_path / "profile") as tab:
        tab.open(bad, 400)
        assert sorted(fault[:12] for fault in layout_faults(tab)) == ["1608 px too ", "missing pict"]
        assert any("nothing" in error for error in tab.errors)
