"""From forms to checked runs and back: the command against the command line's own parser, records against forms."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import FOX, PROMPT
from PIL import Image
from typer.testing import CliRunner

from freectl.cli import app
from freectl.errors import InputError
from freectl.files.record import save_image
from freectl.tasks import edit as editing
from freectl.ui import asking, words


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
