"""A record from a stranger chooses no download."""

import json
from pathlib import Path

import pytest
from PIL import Image

from freectl.files.record import save_image
from freectl.tasks import control as controlling
from freectl.tasks import edit as editing

HUB = "someone/some-model"


@pytest.fixture(autouse=True)
def no_runs(monkeypatch):
    """Nothing is run: what gets this far would be fetched."""

    class FetchedError(Exception):
        pass

    def fetch(*args, **options):
        raise FetchedError

    monkeypatch.setattr(editing, "run", fetch)
    monkeypatch.setattr(controlling, "run", fetch)
    return FetchedError


def of(command, **options):
    settings = {"image": "in.png"} if command == "edit" else {"condition": ["in.png"]}
    record = {"command": command, "prompt": "a cat", "settings": settings | options.pop("settings", {}), "cost": {}}
    name = f"theirs-{command}.png"
    save_image(Image.new("RGB", (8, 8)), name, record | options)
    return name


@pytest.mark.parametrize("command", ["edit", "control"])
def test_a_model_of_the_hub_that_only_a_record_names_is_asked_about(cli, no_runs, command):
    theirs = of(command, model=HUB)
    ran = cli(command, "--config", theirs)
    assert ran.code == 2
    assert HUB in ran.error
    assert "--trust-record" in ran.error
    for args in (["--trust-record"], ["--model", HUB], ["--model", "mini"]):
        with pytest.raises(no_runs):
            cli(command, "--config", theirs, *args)


def test_preprocessors_models_too(cli, no_runs):
    theirs = of("control", settings={"preprocess": [f"depth={HUB}"]})
    ran = cli("control", "--config", theirs)
    assert (ran.code, "--preprocess" in ran.error, HUB in ran.error) == (2, True, True)
    with pytest.raises(no_runs):
        cli("control", "--config", of("control", settings={"preprocess": ["canny=20,40"]}))


def test_what_people_write_themselves_and_folders_are_taken_at_their_word(cli, no_runs, model):
    Path("mine.yaml").write_text(f"model: {HUB}\nprompt: a cat\nimage: in.png\n")
    for config in ("mine.yaml", of("edit", model=str(model)), of("edit", model="mini")):
        with pytest.raises(no_runs):
            cli("edit", "--config", config)


def test_the_record_beside_a_jpeg_is_a_record(cli):
    Path("theirs.json").write_text(json.dumps({"model": HUB, "prompt": "a cat", "image": "in.png", "cost": {}}))
    assert "--trust-record" in cli("edit", "--config", "theirs.json").error


def test_a_record_that_names_a_pipe_or_a_device_hangs_nothing(cli):
    import os

    os.mkfifo("pipe.png")
    for name, found in (("pipe.png", "named pipe"), ("/dev/zero", "device"), ("https://example.org/a.png", "address")):
        for option in ("image", "mask", "keep", "appearance_image"):
            ran = cli("edit", "--config", of("edit", settings={option: name}))
            assert ran.code == 2
            assert found in ran.error
