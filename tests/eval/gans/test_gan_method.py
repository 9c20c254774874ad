"""`freectl edit --method gan`: a trained generator found by name, with the files and records of any other method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import freectl
from eval.gans.method import Translator
from freectl import methods
from freectl.cli import main
from freectl.errors import InputError
from freectl.files.record import read_record
from freectl.methods.setting import described
from freectl.tasks.compare import chosen

SIZE = (40, 32)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run `freectl edit` on in.png in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC).save("in.png")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["freectl", "edit", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_result_is_the_generators_and_its_record_repeats_it(cli, gan_weights: Path) -> None:
    code, out, _ = cli("--image", "in.png", "--method", "gan", "--gan-weights", gan_weights, "--seed", 3,
                       "--compare", "--format", "json")  # fmt: skip
    assert code == 0
    record = json.loads(out)
    assert record == read_record("out.png")
    assert (record["method"], record["model"], record["steps"], record["seed"]) == ("gan", None, None, 3)
    assert record["settings"]["gan_direction"] == "AB"
    assert record["about"]["model"] == "pix2pix"
    assert record["about"]["training"]["pictures"] == 200
    assert (record["cost"]["row_forwards"], record["cost"]["row_backwards"]) == (0, 0)
    assert record["cost"]["seconds"]["synthesis"] > 0
    assert record["warnings"] == []
    expected = np.asarray(Translator(gan_weights, seed=3)(Image.open("in.png")))
    assert np.array_equal(pixels("out.png"), expected)
    assert Path("out_compare.png").exists()
    code, _, err = cli("--config", "out.png", "--output", "again.png", "--format", "quiet")
    assert (code, err) == (0, "")
    again = read_record("again.png")
    assert np.array_equal(pixels("again.png"), expected)
    assert {key: again[key] for key in ("settings", "seed", "about")} == {
        key: record[key] for key in ("settings", "seed", "about")
    }


def test_what_a_generator_does_not_read_gets_a_warning(cli, gan_weights: Path) -> None:
    code, out, err = cli("--image", "in.png", "--method", "gan", "--gan-weights", gan_weights, "--prompt", "a cat",
                         "--steps", 7, "--format", "json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["warnings"] == ["gan does not use --prompt, --steps"]
    assert "warning: gan does not use --prompt, --steps" in err


def test_kept_pixels_are_the_inputs(cli, gan_weights: Path) -> None:
    code, _, _ = cli("--image", "in.png", "--method", "gan", "--gan-weights", gan_weights, "--output", "free.png")
    mask = Image.new("L", SIZE, 0)
    mask.paste(255, (0, 0, 20, 32))
    mask.save("mask.png")
    code, _, _ = cli("--image", "in.png", "--method", "gan", "--gan-weights", gan_weights, "--keep", "mask.png")
    assert code == 0
    assert np.array_equal(pixels("out.png")[:, :20], pixels("in.png")[:, :20])
    assert np.array_equal(pixels("out.png")[:, 20:], pixels("free.png")[:, 20:])
    assert not np.array_equal(pixels("free.png")[:, :20], pixels("in.png")[:, :20])


def test_python_function_equals_the_command(cli, gan_weights: Path) -> None:
    cli("--image", "in.png", "--method", "gan", "--gan-weights", gan_weights)
    result = freectl.edit("in.png", method="gan", gan_weights=str(gan_weights))
    assert np.array_equal(np.asarray(result.image), pixels("out.png"))
    assert result.settings == read_record("out.png")["settings"]
    with pytest.raises(InputError, match="prompt: found an empty text"):
        freectl.edit("in.png")
    with pytest.raises(InputError, match="gan_weights: found given to sdedit"):
        freectl.edit("in.png", "a cat", method="sdedit", gan_weights=str(gan_weights))


def test_shipped_weights_go_by_their_name(cli, monkeypatch, gan_weights: Path) -> None:
    monkeypatch.setattr("gan_baselines.record.SHIPPED", gan_weights.parent)
    code, out, _ = cli("--image", "in.png", "--method", "gan", "--gan-weights", "weights", "--format", "json")
    assert code == 0
    assert json.loads(out)["settings"]["gan_weights"] == "weights"
    assert np.array_equal(pixels("out.png"), np.asarray(Translator(gan_weights)(Image.open("in.png"))))
    _, _, err = cli("--image", "in.png", "--method", "gan")
    assert err.endswith("wrote, weights\n"), "the names are listed"


def test_beside_other_methods(cli, toy_pipe, tmp_path: Path, gan_weights: Path) -> None:
    toy_pipe.save_pretrained(tmp_path / "toy")
    code, out, _ = cli("--image", "in.png", "--method", "sdedit,gan", "--gan-weights", gan_weights, "--model", "toy",
                       "--prompt", "a cat", "--source-prompt", "a dog", "--concept", "dog", "--keep-background",
                       "--steps", 2, "--set", "strength=1", "--compare", "--format", "json")  # fmt: skip
    assert code == 0
    sdedit, gan = json.loads(out)["results"]
    assert not any("gan" in text for text in sdedit["warnings"])
    assert gan["cost"]["row_forwards"] == 0
    assert {"gan does not use --keep-background", "gan does not use --concept"} <= set(gan["warnings"])
    expected = np.asarray(Translator(gan_weights)(Image.open("in.png")))
    assert np.array_equal(pixels("out_gan.png"), expected)
    width, height = Image.open("out_compare.png").size
    assert width > 3 * height, "input and two results make one row"


def test_all_takes_generators_where_weights_are_given() -> None:
    assert chosen("all", ["strength", "gan_weights"]) == [*methods.REGISTRY, "gan"]
    assert "gan" not in chosen("all", ["strength"])
    assert chosen("pnp,gan") == ["pnp", "gan"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--method", "gan"), "--gan-weights: found nothing"),
        (("--method", "gan", "--gan-weights", "nowhere"), "--gan-weights: found 'nowhere'"),
        (("--method", "gan", "--gan-weights", "OWN", "--gan-direction", "BA"), "without a generator BA"),
        (("--method", "gan", "--gan-weights", "OWN", "--gan-direction", "up"), "gan_direction"),
        (("--method", "gan", "--gan-weights", "OWN", "--mask", "attention"), "--mask: found given to gan"),
        (("--method", "gan", "--gan-weights", "OWN", "--keep-background"), "--keep-background"),
        (("--method", "gan", "--gan-weights", "OWN", "--device", "tpu"), "--device"),
        (("--method", "gan", "--gan-weights", "CUT"), "damaged"),
        (("--method", "gan", "--gan-weights", "OWN", "--set", "strength=1"), "strength"),
        (("--prompt", "a cat", "--gan-weights", "OWN"), "--gan-weights: found given to freecontrol"),
        (("--prompt", "a cat", "--gan-weights", "OWN", "--method", "sdedit,pnp"), "given to sdedit, pnp"),
        (("--prompt", "a cat", "--method", "sdedit,gan"), "--gan-weights: found nothing"),
        (("--method", "gam", "--prompt", "a cat"), "did you mean 'gan'"),
    ],
)
def test_bad_use_is_one_line_before_anything_loads(cli, monkeypatch, tmp_path, gan_weights, args, named) -> None:
    cut = tmp_path / "CUT"
    cut.mkdir()
    for path in gan_weights.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[: None if path.suffix == ".json" else 1000])
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("gan_baselines.weights.load_weights", lambda *_, **__: pytest.fail("weights were read"))
    monkeypatch.setattr("freectl.tasks.edit.load_pipeline", lambda *_, **__: pytest.fail("a model was loaded"))
    places = {"OWN": gan_weights}
    code, out, err = cli("--image", "in.png", *(places.get(arg, arg) for arg in args))
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_without_a_checkout_one_line_says_so(cli, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "eval", None)
    code, out, err = cli("--image", "in.png", "--method", "gan", "--gan-weights", "x")
    assert (code, out) == (2, "")
    assert "'gan', whose module eval.gans.method is not installed" in err
    assert "a checkout" in err
    assert [method.name for method in methods.available()] == [*methods.REGISTRY, *methods.CONTROL]


def test_it_is_listed_and_described() -> None:
    assert [one.name for one in methods.available()] == [*methods.REGISTRY, *methods.CONTROL, *methods.OUTSIDE]
    method = methods.get("gan")
    assert "--gan-weights" in method.summary
    for one in described(method.settings()):
        assert one["name"].startswith("gan_")
        assert all(one[key] for key in ("description", "range", "unit", "source"))
