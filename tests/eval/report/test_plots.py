"""The plots of a report."""

from pathlib import Path

import pytest
from result_kit import about, line

from eval.bench.mini_files import load_mini
from eval.report.command import report
from eval.report.plots import curves, pareto_svg, without_outliers
from eval.report.svg import Point
from eval.report.svg_axes import axis
from eval.results.reading import read
from eval.results.store import Store
from eval.results.summary import summary
from freectl.errors import InputError


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


@pytest.mark.parametrize("values", [[0.5], [0.0, 1e-9], [-3.0, 1000.0], [0.2, 0.2]])
def test_axes_hold_their_values_with_two_ticks_or_more(values: list[float]) -> None:
    for log in (False, True):
        if not log or min(values) > 0:
            drawn = axis("x", values, log=log)
            assert all(0 <= drawn.place(value) <= 1 for value in values)
            assert len(drawn.ticks()) >= 2
