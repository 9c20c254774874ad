"""The sheet of a generator's translations."""

from pathlib import Path

import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from eval.gans import sheet
from eval.gans.method import Translator
from freectl.errors import InputError


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
