"""The report: numbers of its tables, one self-contained file, how it looks in a real browser."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from result_kit import VARIANTS, about, invoke, line
from scipy.stats import binomtest

from eval.bench.mini_files import load_mini
from eval.files import write_text
from eval.report.command import published_for
from eval.report.overview import best_variants
from eval.report.page import page
from eval.report.pictures import grid_variants
from eval.results.reading import Results, read
from eval.results.store import Store
from eval.results.summary import differences, differences_by_kind, summary
from freectl.errors import FreectlError, InputError


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
    assert "50 pictures: KID leads, since FID is biased" in many
    assert many.index("KID x10³") < many.index("FID ↓") < many.index("CMMD ↓")
    told = "of fewer than 50 pictures are not printed"
    assert [told in one for one in (few, mixed, many)] == [True, True, False]


def test_differences_by_kind_are_paired_within_each_kind(results_folder: Path) -> None:
    results = read([results_folder])
    found = differences_by_kind(results, "freecontrol", "mse")
    for variant, own in found.items():
        for kind in results.kinds:
            cases = [case for case, line in results.by_variant[variant].items() if line["kind"] == kind]
            apart = [results.by_variant[variant][case]["scores"]["mse"]
                     - results.by_variant["freecontrol"][case]["scores"]["mse"] for case in cases]  # fmt: skip
            assert own[kind].count == len(cases)
            assert own[kind].mean == pytest.approx(sum(apart) / len(apart))
            assert own[kind].low <= own[kind].mean <= own[kind].high
    assert set(found) == set(results.by_variant) - {"freecontrol"}
    text = page(results, baseline="freecontrol", rows=0, published=None)
    assert text.count("differences from freecontrol</h4>") == 4


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
