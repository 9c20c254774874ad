"""`freectl control --method gan`: sketches and label maps through a generator."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import freectl
from eval.gans.method import Translator
from freectl.cli import main
from freectl.errors import InputError
from freectl.files.record import read_record
from gan_baselines.data.pictures import to_image
from gan_baselines.inference import translate
from gan_baselines.models import build
from gan_baselines.settings import resolve
from gan_baselines.weights import load_weights, save_weights

SIZE = (40, 32)
SPADE = ["model.labels=3", "model.width=4", "model.ups=2", "model.hidden=4", "model.size=32",
         "model.spade_norm=instance", "model.discriminator.width=4", "model.discriminator.scales=1",
         "model.init=normal"]  # fmt: skip
BICYCLE = ["model.generator.width=4", "model.generator.downs=3", "model.discriminator.width=4", "model.encoder_width=2",
           "model.encoder_blocks=1", "model.latent=3", "model.discriminator.scales=1", "model.init=normal"]  # fmt: skip


def weights_of(name: str, sets: list[str], folder: Path) -> Path:
    config = resolve(name, None, sets).model
    torch.manual_seed(0)
    net = build(config)
    save_weights(folder, config, dict(net.generators), translators=sorted(net.translators))
    return folder


def classes() -> np.ndarray:
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return ((rows > 12).astype(np.uint8) + (columns > 20)).astype(np.uint8)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(classes(), "L").save("labels.png")
    Image.new("RGB", SIZE, (200, 90, 20)).save("in.png")
    return tmp_path


def cli(monkeypatch: pytest.MonkeyPatch, capsys: Any, *args: Any) -> tuple[Any, str, str]:
    monkeypatch.setattr(sys, "argv", ["freectl", "control", *map(str, args)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_a_label_map_becomes_what_the_generator_makes_of_it(place: Path, monkeypatch, capsys) -> None:
    folder = weights_of("spade", SPADE, place / "spade")
    run = ("--condition", "labels.png", "--method", "gan", "--gan-weights", folder, "--seed", 4)
    code, out, _ = cli(monkeypatch, capsys, *run, "--compare", "--format", "json")
    assert code == 0
    loaded = load_weights(folder)
    maps = torch.from_numpy(classes()).float()[None]
    expected = to_image(translate(loaded.translators["AB"], maps, loaded.multiple, seed=4))
    made = np.asarray(Image.open("out.png"))
    assert np.array_equal(made, np.asarray(expected))
    record = json.loads(out)
    assert record == read_record("out.png")
    assert (record["command"], record["method"], record["model"], record["warnings"]) == ("control", "gan", None, [])
    assert record["conditions"] == [{"picture": "labels.png", "size": list(SIZE)}]
    assert Path("out_compare.png").exists()
    code, _, err = cli(monkeypatch, capsys, "--config", "out.png", "--output", "again.png", "--format", "quiet")
    assert (code, err) == (0, "")
    assert np.array_equal(np.asarray(Image.open("again.png")), made)


def test_classes_are_numbers_whatever_their_colours(place: Path) -> None:
    weights = str(weights_of("spade", SPADE, place / "spade"))
    coloured = Image.fromarray(classes(), "L")
    coloured.putpalette([9, 8, 7, 200, 0, 0, 0, 200, 0])
    coloured.save("coloured.png")
    given = [Image.fromarray(classes(), "L"), coloured, classes(), "coloured.png", Path("labels.png")]
    made = [np.asarray(freectl.control(one, method="gan", gan_weights=weights).image) for one in given]
    assert all(np.array_equal(one, made[0]) for one in made)
    assert made[0].std() > 0


def test_a_sketch_has_several_answers(place: Path) -> None:
    """One for each seed, the same as `freectl edit` and the generator give."""
    folder = weights_of("bicyclegan", BICYCLE, place / "sketches")
    answers = []
    for seed in (0, 1):
        given = {"method": "gan", "gan_weights": str(folder), "seed": seed}
        result = freectl.control("in.png", **given)
        expected = np.asarray(Translator(folder, seed=seed)(Image.open("in.png")))
        assert np.array_equal(np.asarray(result.image), expected)
        assert np.array_equal(np.asarray(freectl.edit("in.png", **given).image), expected)
        answers.append(expected)
    assert not np.array_equal(*answers)
    edges = freectl.control(
        "in.png", method="gan", gan_weights=str(folder), preprocess="canny", prompt="a fox", steps=9
    )
    assert np.asarray(edges.conditions[0]).std() == 0  # a flat picture has no edges
    assert edges.record["warnings"] == ["gan does not use --prompt, --steps"]


BAD: list[tuple[list[str], str]] = [
    (["--condition", "in.png"], "--condition: found 'in.png' in colours; allowed: a grey or palette PNG"),
    (["--condition", "far.png"], "--condition: found the class 7; allowed: 0 to 2, those of the weights"),
    (
        ["--condition", "labels.png", "--preprocess", "canny"],
        "--preprocess: found canny for a label map",
    ),
    (["--condition", "labels.png", "--condition", "labels.png"], "--condition: found 2 for gan"),
    (["--condition", "labels.png", "--concept", "fox", "--prompt", "a fox"], "--concept: found given to gan"),
    (["--condition", "labels.png", "--gan-weights", "nowhere"], "--gan-weights: found"),
    (["--condition", "labels.png", "--gan-weights", "instances"], "instance maps beside labels"),
    (["--condition", "labels.png", "--gan-direction", "BA"], "without a generator BA"),
    (["--condition", "labels.png", "--device", "tpu"], "--device: found 'tpu'"),
    (["--condition", "box.obj"], "--condition: found the mesh 'box.obj' for gan; allowed: a picture"),
    (["--condition", "labels.png", "--method", "style-transfer"], "style-transfer, which takes no condition pictures"),
]


@pytest.mark.parametrize(("args", "told"), BAD, ids=[told for _, told in BAD])
def test_what_cannot_be_is_one_line(place: Path, monkeypatch, capsys, args: list[str], told: str) -> None:
    weights_of("spade", SPADE, place / "spade")
    weights_of("spade", [*SPADE, "model.instances=true"], place / "instances")
    Image.fromarray(classes() * 7 % 8, "L").save("far.png")
    Path("box.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    before = {"--method": "gan", "--gan-weights": str(place / "spade")}
    given = [part for pair in before.items() if pair[0] not in args for part in pair]
    code, out, err = cli(monkeypatch, capsys, *given, *args)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not Path("out.png").exists()


def test_an_edit_with_label_weights_names_the_command_that_does(place: Path) -> None:
    folder = weights_of("spade", SPADE, place / "spade")
    with pytest.raises(InputError, match="reads label maps; allowed: .*freectl control`"):
        freectl.edit("in.png", method="gan", gan_weights=str(folder))
