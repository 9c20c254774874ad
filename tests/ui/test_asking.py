"""From forms to checked runs and back: the command against the command line's own parser, records against forms."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner
from ui_kit import FOX, PROMPT

from freectl.cli import app
from freectl.errors import InputError
from freectl.files.record import save_image
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing
from freectl.ui import asking, words
from freectl.ui.compare_tab import planned_for

SKETCH = FOX.with_name("sketch.png")


def form(**values: Any) -> asking.Form:
    return {"image": str(FOX), "prompt": PROMPT, "method": "sdedit", "preset": "default", "steps": 3, **values}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("0-3, 7", [0, 1, 2, 3, 7]), (" 4 ,4, 1 ", [4, 1]), ("5 - 6", [5, 6])],
)
def test_seeds_in_a_text(text: str, numbers: list[int]) -> None:
    assert words.whole_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "-1", "3-1", "0-99", "1.5", "0-3-4", "1e3"])
def test_other_seeds_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--seed: found") as refused:
        words.whole_numbers(text)
    assert "\n" not in str(refused.value)


def test_a_grid_has_every_seed_with_every_value() -> None:
    asked = asking.edits(form(seed="0, 2", vary="strength", values="0.25, 0.5"))
    assert [(one.options.seed, one.plan.settings.strength) for one in asked] == [
        (0, 0.25),
        (2, 0.25),
        (0, 0.5),
        (2, 0.5),
    ]
    with pytest.raises(InputError, match="at most 16 in one go"):
        asking.edits(form(seed="0-8", vary="strength", values="0.25, 0.5"))
    with pytest.raises(InputError, match="--set strength: found '7'"):
        asking.edits(form(vary="strength", values="0.5, 7"))


def test_each_of_a_grid_is_asked_for_again_by_its_own_form() -> None:
    for one in asking.edits(form(seed="0, 2", vary="strength", values="0.25, 0.5")):
        (again,) = asking.edits(one.form)
        assert (again.options, again.plan.settings) == (one.options, one.plan.settings)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": "9", "negative_prompt": 'it\'s "so" $HOME; ls', "guidance_scale": 2.5},
        {"settings": {"strength": 0.5}},
        {"more": "dtype=bf16\nbackground=black\nkeep_alpha=true"},
        {"method": "freecontrol", "preset": "paper", "concept": "cat", "settings": {"normalize": "minmax", "seeds": 3}},
        {"method": "masactrl", "source_prompt": "a fluent fox", "settings": {"words": "fox=cat"}},
    ],
)
def test_the_command_asks_the_command_line_for_the_same_run(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = asking.edits(form(**given))
    taken: list[Any] = []

    class ReachedError(Exception):
        """The plan of the command line is made."""

    def planned(image: Any, options: Any, settings: dict[str, Any]) -> None:
        taken.append((image, options, settings))
        raise ReachedError

    plan = editing.plan
    monkeypatch.setattr(editing, "plan", planned)
    monkeypatch.chdir(FOX.parent)
    done = CliRunner().invoke(app, shlex.split(asked.command())[1:])
    assert isinstance(done.exception, ReachedError), done.output
    image, options, settings = taken[0]
    assert plan(image, options, settings).settings == asked.plan.settings
    assert options == asked.options
    assert Path(image).name == "fox.png"


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mesh of one triangle."""
    path = tmp_path_factory.mktemp("mesh") / "cube.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n")
    return path


def test_several_conditions_ask_the_command_line_for_the_same_run(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture and a mesh, with what each has of its own; the record gives the form back."""
    pytest.importorskip("trimesh")
    given = form(
        method="freecontrol",
        image=None,
        condition=[str(SKETCH), str(cube)],
        prompt="a fluent fox and a noto cat",
        concept="fox; cat",
        preprocess="canny=50,150; depth",
        mask="none",
        view="10,20",
        inside=True,
    )
    (asked,) = asking.controls(given)
    taken: list[Any] = []
    plan = controlling.plan
    monkeypatch.setattr(
        "freectl.cli.control._run", lambda options, settings, job: taken.append((options, settings, job))
    )
    folder = cube.parent
    (folder / SKETCH.name).write_bytes(SKETCH.read_bytes())
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, shlex.split(asked.command())[1:])
    assert done.exit_code == 0, done.output
    options, settings, job = taken[-1]
    assert options.condition == (SKETCH.name, "cube.obj")
    assert options.model_copy(update={"condition": asked.options.condition}) == asked.options
    assert job.explain == Path("inside")
    made = plan(options.condition, options, settings)
    assert [(one.label, [part.concept for part in one.parts]) for one in made.conditions] == [
        ("canny", ["fox"]),
        ("depth", ["cat"]),
    ]
    assert made.settings == asked.plan.settings
    record = asked.record({"command": "control", **asked.options.model_dump(exclude={"lora"}), "settings": {}}, "a.png")
    name, filled, missing = asking.restored(record, {SKETCH.name: str(SKETCH)})
    assert (name, missing) == ("control", ["upload cube.obj again (condition)"])
    assert (filled["concept"], filled["preprocess"]) == ("fox; cat", "canny=50,150; depth")
    assert filled["condition"] == [str(SKETCH)]


def test_settings_of_a_comparison_are_each_methods_own() -> None:
    given = form(methods=["sdedit", "pnp"], settings="strength=0.25\n\n", more="background=black", concept="", seed=0)
    picture, options, overrides, planned = planned_for(given)
    assert (options.background, overrides) == ("black", {"strength": "0.25"})
    by_name = {one.method: one for one in planned}
    assert by_name["sdedit"].plan.settings.strength == 0.25
    assert by_name["pnp"].notes == ["pnp has no setting strength"]
    assert picture.image.size == Image.open(FOX).size
    with pytest.raises(InputError, match="--set: found unknown name 'strenght'; .*did you mean 'strength'"):
        planned_for({**given, "settings": "strenght=0.5"})


def test_a_record_fills_the_form_that_made_it(tmp_path: Path) -> None:
    (asked,) = asking.edits(
        form(settings={"strength": 0.5}, seed="4", source_prompt="a fluent fox", more="background=black")
    )
    record = asked.record(editing.run(asked.plan).record, "out.png")
    path = save_image(Image.new("RGB", (8, 8)), tmp_path / "out.png", record)
    name, filled, missing = asking.restored(asking.read_dropped(str(path)), {"fox.png": str(FOX)})
    assert (name, missing) == ("edit", [])
    (again,) = asking.edits(filled)
    assert (again.options, again.plan.settings) == (asked.options, asked.plan.settings)
    assert str(FOX.parent) not in json.dumps(record)
    assert record["settings"]["image"] == "fox.png"


def test_a_record_without_its_pictures_says_which() -> None:
    record = {"method": "sdedit", "prompt": PROMPT, "settings": {"image": "/secret/fox.png", "keep": "/secret/k.png"}}
    _, filled, missing = asking.restored(record, {})
    assert (filled["image"], filled["keep"]) == (None, None)
    assert missing == ["upload fox.png again (image)", "upload k.png again (keep)"]


@pytest.mark.parametrize(
    "record",
    [
        {"method": "nothing", "prompt": "a cat"},
        {"method": "sdedit", "prompt": "a cat", "steps": "many"},
        {"method": "sdedit", "prompt": ["a"], "settings": {}},
        {"method": "sdedit", "prompt": "a cat", "settings": "all"},
        {"method": "sdedit", "prompt": "a cat", "settings": {"image": "x", "strength": 70}},
        {"method": "sdedit", "prompt": "a cat", "settings": {"image": "x", "unheard": 1}},
    ],
)
def test_a_tampered_record_is_refused_in_one_line(record: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        asking.restored(record, {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["steps=3", "mask=/etc/passwd", "image=x", "nothing=1", "dtype", "dtype=int4"])
def test_other_options_are_checked_as_on_the_command_line(text: str) -> None:
    with pytest.raises(InputError) as refused:
        asking.edits(form(more=text))
    assert "\n" not in str(refused.value)


def test_unknown_words_are_marked_and_nothing_of_a_prompt_becomes_markup() -> None:
    assert words.marked(PROMPT, "mini") == ""
    assert words.marked("a dragon", "another") == ""
    assert words.marked("a Dragon", "mini").count("<mark>Dragon</mark>") == 1
    assert "<b>" not in words.marked("a <b>dragon</b> & cat", "mini")
