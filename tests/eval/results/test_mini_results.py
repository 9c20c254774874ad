"""prompts/mini_results, scores case by case: they belong to what ships, and the page beside them quotes them."""

from pathlib import Path

import pytest

from eval.bench.cases import balanced
from eval.bench.mini_files import load_mini
from eval.results.reading import Results, read
from eval.results.tables import summary_markdown
from eval.run.plan import weights_digest

FOLDER = Path(__file__).resolve().parents[3] / "prompts" / "mini_results"
COLUMNS = ["target", "all_right", "iou", "mse", "background_mse", "clip", "self_similarity", "seconds", "row_forwards"]


@pytest.fixture(scope="module")
def published() -> Results:
    return read([FOLDER])


def test_they_are_of_the_benchmark_and_the_model_that_ship(published: Results) -> None:
    (about,) = published.abouts
    assert about["digest"] == load_mini().digest
    assert about["weights"] == weights_digest("mini")


def test_every_variant_has_the_same_cases(published: Results) -> None:
    cases = {case.key for case in balanced(load_mini().cases, 48)}
    assert all(set(lines) == cases for lines in published.by_variant.values())


def test_their_page_quotes_them(published: Results) -> None:
    assert summary_markdown(published, COLUMNS) in (FOLDER / "README.md").read_text(encoding="utf-8")
