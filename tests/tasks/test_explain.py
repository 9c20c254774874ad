"""Seeing inside: the picture stays the same to the bit, and what is shown is what the method worked with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_toy import sd3_pipeline
from PIL import Image
from toy import toy_pipeline

from freectl.denoising import cost as counted
from freectl.errors import InputError
from freectl.files.cache import Cache
from freectl.files.chart import bars, line_chart, ticks
from freectl.files.sheet import stacked
from freectl.methods.observer import Observer
from freectl.semantics.pictures import coloured
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.tasks import explain as explaining
from freectl.tasks.compare import FirstEdits
from freectl.tasks.explain_sheet import facts, masked, sheet
from freectl.tasks.options import ControlOptions, EditOptions

FEW: dict[str, Any] = {
    "seeds": 2,
    "components": 3,
    "seed_steps": 4,
    "layers": "first",
    "features": "keys",
}
STEPS = 4


@pytest.fixture(autouse=True)
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What part of a forward is executed takes seconds to measure, and is not what these tests ask."""
    for name in ("truncated_share", "early_share"):
        monkeypatch.setattr(counted, name, lambda *_: 0.5)


@pytest.fixture(scope="module")
def unet(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("explain")
    toy_pipeline(folder / "parts").save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("explain")
    sd3_pipeline(folder / "parts", third=False).save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.fixture(scope="module")
def kept(freectl_home: Path) -> FirstEdits:
    """Keeps bases; every run inverts its picture."""
    return FirstEdits(Cache())


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


def plan(picture: Image.Image, model: str, settings: dict[str, Any], **options: Any) -> Any:
    given = {"prompt": "a red cat", "source_prompt": "a grey cat", "steps": STEPS, "model": model, **options}
    return editing.plan(picture, EditOptions(**given), settings)


def same(one: Any, other: Any) -> bool:
    """Whether two results are one: pixels, and the network's work unless one of them had bases to build."""
    counted = [(result.cost["row_forwards"], result.cost["row_backwards"]) for result in (one, other)]
    comparable = one.cost["cached"]["bases"] == other.cost["cached"]["bases"]
    return one.image.tobytes() == other.image.tobytes() and (counted[0] == counted[1] or not comparable)


def check_energies(found: Any) -> None:
    """With three components, one layer and no mask, the shown differences add up to the energy of the trace."""
    trace = {one["timestep"]: one["structure"] for one in found.result.trace}
    shown = dict.fromkeys((one.time for one in found.inside.seen), 0.0)
    for one in found.inside.seen:
        shown[one.time] += one.distance
    assert shown == pytest.approx(trace, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "settings", "options"),
    [
        ("unet", FEW, {"concept": "cat", "mask": "attention"}),
        ("unet", {"blend": "cat"}, {"method": "p2p"}),
        ("transformer", FEW | {"window_level": 0.3}, {}),
        ("transformer", {}, {"method": "flowedit"}),
    ],
    ids=["freecontrol", "p2p", "freecontrol on sd3", "flowedit on sd3"],
)
def test_looking_changes_neither_picture_nor_work(kept, model, settings, options, picture, request) -> None:
    checked = plan(picture, request.getfixturevalue(model), settings, **options)
    wanted = editing.run(checked, cache=kept)
    found = explaining.run(checked, cache=kept)
    assert same(found.result, wanted)
    assert found.estimates[-1][:2] == (found.estimates[-1][1],) * 2
    assert checked.method.observer.__class__ is Observer
    drawn, told = sheet(found), json.loads(json.dumps(facts(found), allow_nan=False))
    assert drawn.width > 300
    assert told["record"]["prompt"] == "a red cat"
    assert [one["step"] for one in told["estimates"]] == [step for step, _, _ in found.estimates]
    assert bool(told["masks"]) == ("mask" in options)
    assert bool(told["compared"]) == (checked.method.name == "freecontrol")
    if "mask" not in options:
        check_energies(found)


def test_the_last_estimate_is_the_result_on_a_flow(kept, picture, transformer) -> None:
    """Behind the last step sigma is 0: the estimate of the clean picture is the picture."""
    found = explaining.run(plan(picture, transformer, {}, method="sdedit"), cache=kept)
    shown, made = (np.asarray(one, dtype=int) for one in (found.estimates[-1][2], found.result.image))
    assert np.abs(shown - made).max() <= 1


def test_maps_of_the_words_are_attention_and_equal_prompts_share_them(kept, picture, unet) -> None:
    equal = explaining.run(plan(picture, unet, {}, method="p2p", prompt="a grey cat"), cache=kept)
    for lane in ("source", "edit"):
        torch.testing.assert_close(equal.inside.maps[lane].sum(-1), torch.ones(len(equal.inside.maps[lane])))
    torch.testing.assert_close(equal.inside.maps["edit"], equal.inside.maps["source"])
    other = explaining.run(plan(picture, unet, {"edit": "refine"}, method="p2p"), cache=kept)
    maps = other.inside.maps
    tokens = facts(other)["alignment"]["tokens"]
    shared = [(one["position"], one["sources"][0]["position"]) for one in tokens if one["sources"]]
    assert 0 < len(shared) < len(tokens)
    for own, of in shared:
        torch.testing.assert_close(maps["edit"][:, own], maps["source"][:, of])


def test_control_shows_each_condition(kept, picture, unet) -> None:
    options = ControlOptions(
        condition=("one.png", "two.png"),
        prompt="a red cat",
        concept=("cat", "cat"),
        mask="none",
        steps=STEPS,
        model=unet,
    )
    checked = controlling.plan([picture, picture.rotate(90)], options, FEW)
    found = explaining.run(checked, cache=kept)
    plain = controlling.run(checked, cache=kept)
    assert same(found.result, plain)
    assert found.result.cost["cached"]["bases"] == plain.cost["cached"]["bases"] is True
    assert [one.guidance for one in found.inside.seen[:2]] == [0, 1]
    assert len(found.guidance) == 2
    check_energies(found)
    assert len(found.inside.seen) > 2
    assert {one["guidance"] for one in facts(found)["compared"]} == {0, 1}
    assert sheet(found).height > 700


def test_a_method_without_steps_is_refused(picture) -> None:
    checked = plan(picture, "mini", {}, method="sdedit")
    outside = type("Outside", (), {"source": None, "method": type("Gan", (), {"name": "gan"})})
    explaining.check(checked)
    with pytest.raises(InputError, match="--explain: found --method gan"):
        explaining.check(outside)  # type: ignore[arg-type]


def test_colours_and_masks_lie_on_the_grid_of_the_picture() -> None:
    """A picture twice as wide as high has twice as many columns as rows."""
    coordinates = torch.zeros(1, 8, 3)
    coordinates[0, 5, 0] = 1  # second row, second column of four
    seen = np.asarray(coloured(coordinates, (4, 2))[0])
    assert np.argwhere(seen[..., 0] == 255).tolist() == [[1, 1]]
    mask = torch.zeros(8)
    mask[5] = 1
    shown = np.asarray(masked(Image.new("RGB", (8, 4), "black"), mask))
    assert np.argwhere((shown == 0).all(-1)).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.053), (-3, 7.5), (1, 200), (0, 1e-9), (2, 2)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-12 <= one <= high + 1e-12 for one in found)
    steps = np.diff(found)
    assert len(steps) == 0 or np.allclose(steps, steps[0])
    assert len(steps) == 0 or round(float(f"{steps[0]:e}".split("e")[0]), 6) in (1, 2, 5)


def test_a_line_goes_through_its_points_and_bars_are_as_long_as_their_values() -> None:
    seen = np.asarray(line_chart({"a": [(0, 0), (10, 5)]}, "t", "x", "y", size=(500, 280), colours=["#ff0000"]))
    rows, columns = np.nonzero((seen == (255, 0, 0)).all(-1))
    # a straight line from the lower left corner of the frame to its upper right one
    slope, offset = np.polyfit(columns, rows, 1)
    assert np.abs(rows - slope * columns - offset).max() < 4
    assert slope < 0
    with pytest.raises(ValueError, match="a point"):
        line_chart({}, "t", "x", "y")
    long = np.asarray(bars({"a": 2.0, "b": 1.0}, "s"))
    widths = [int((long[row] == long[row, 122]).all(-1).sum()) for row in (16, 40)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.02)


def test_parts_lie_below_each_other() -> None:
    parts = [("one", Image.new("RGB", (40, 10), "red")), ("two", Image.new("RGB", (60, 20), "blue"))]
    seen = np.asarray(stacked(parts))
    red, blue = ((seen == colour).all(-1) for colour in ((255, 0, 0), (0, 0, 255)))
    assert (red.sum(), blue.sum()) == (400, 1200)
    assert np.nonzero(red)[0].max() < np.nonzero(blue)[0].min()


def test_files_are_there(tmp_path: Path, picture, unet) -> None:
    """What the command line writes: a picture, and JSON with the same record."""
    from typer.testing import CliRunner

    from freectl.cli import app

    picture.save(tmp_path / "in.png")
    words = f"edit --image {tmp_path}/in.png --model {unet} --method sdedit --steps 5 --format json"
    out = ["--prompt", "a cat", "--output", str(tmp_path / "a.png"), "--explain", str(tmp_path / "seen")]
    done = CliRunner().invoke(app, [*words.split(), *out])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "seen" / "a_explained.json").read_text())
    assert Image.open(told["picture"]).width > 300
    assert told["record"]["settings"]["strength"] == json.loads(done.stdout.splitlines()[-1])["settings"]["strength"]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["a_explained.json", "a_explained.png"]
    again = CliRunner().invoke(app, [*words.split(), *out, "--seeds", "2"])
    assert isinstance(again.exception, InputError)
    assert str(again.exception) == "--explain: found with several for --seed; allowed: one run"
