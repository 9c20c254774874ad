"""The command line: every verb on eight pictures, help without torch, one line and exit 2 for bad input."""

import json
import subprocess
import sys

import pytest
from gan_toy import FAST, TINY, picture, write
from PIL import Image
from typer.testing import CliRunner

from gan_baselines.cli import app, main


def run(*arguments):
    """Run in this process; return exit code, stdout, stderr as the command would end."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result


def fails(capsys, monkeypatch, *arguments):
    """Run through `main`; return the exit code and the one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["gan-baselines", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code, captured.err.strip()


def sets(*items):
    return [part for item in items for part in ("--set", item)]


def result_of(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    """Weights folders of one-step trainings made through the command line."""
    out = tmp_path_factory.mktemp("runs")
    folders = {}
    for name in ("dcgan", "pix2pix", "cyclegan"):
        source = data / "pictures" if name == "dcgan" else data
        options = sets(*FAST, *TINY[name], "train.steps=1")
        made = run("train", name, "--data", source, "--out", out / name, *options, "--format", "json")
        value = result_of(made)
        assert value["steps"] == value["trained"] == 1
        folders[name] = out / name / "weights"
    return folders


def test_help_imports_no_torch_and_is_quick():
    # processor time: what a loaded machine adds is not ours
    code = (
        "import sys, time; start = time.process_time(); sys.argv = ['gan-baselines', '--help']\n"
        "from gan_baselines.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "sys.stderr.write(f\"{'torch' in sys.modules} {time.process_time() - start}\")"
    )
    spent = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        heavy, seconds = done.stderr.split()
        assert heavy == "False"
        assert "translate" in done.stdout
        spent.append(float(seconds))
    assert min(spent) < 0.5


def test_translate_one_and_many(data, weights, tmp_path):
    value = result_of(run("translate", "--weights", weights["cyclegan"], "--input", data / "testA", "--direction", "BA",
                          "--output", tmp_path / "o", "--threads", 1, "--format", "json"))  # fmt: skip
    assert (value["pictures"], value["direction"]) == (8, "BA")
    assert len(list((tmp_path / "o").glob("*.png"))) == 8
    picture(1, 45).save(tmp_path / "odd.jpg")
    for out in ("p", "q"):
        result_of(run("translate", "--weights", weights["pix2pix"], "--input", tmp_path / "odd.jpg", "--output",
                      tmp_path / out, "--threads", 1, "--format", "json"))  # fmt: skip
    assert Image.open(tmp_path / "p" / "odd.png").size == (45, 45)
    assert (tmp_path / "p" / "odd.png").read_bytes() == (tmp_path / "q" / "odd.png").read_bytes()


def test_sample(weights, tmp_path):
    for folder, count, seed in (("a", 3, 5), ("b", 1, 6)):
        options = ["--output", tmp_path / folder, "--count", count, "--seed", seed, "--threads", 1, "--format", "json"]
        run_ = run("sample", "--weights", weights["dcgan"], *options)
        assert result_of(run_)["pictures"] == count
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["000005.png", "000006.png", "000007.png"]
    a, b = (Image.open(tmp_path / f / "000006.png").tobytes() for f in "ab")
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1


def test_evaluate(data, weights, capsys):
    value = result_of(
        run("evaluate", "--weights", weights["cyclegan"], "--data", data, "--threads", 1, "--format", "json")
    )
    assert value["truth"] is True
    pixels = [(picture(i), picture(i, invert=True)) for i in range(8)]
    by_hand = sum(abs(x - y) for a, b in pixels for x, y in zip(a.tobytes(), b.tobytes(), strict=True))
    assert value["AB"]["identity"]["l1"] == pytest.approx(by_hand / (8 * 32 * 32 * 3) / 127.5, rel=1e-4)
    assert set(value["BA"]["model"]) == {"l1", "psnr", "kid", "cycle_l1"}
    text = run("evaluate", "--weights", weights["pix2pix"], "--data", data, "--threads", 1)
    assert [line.split()[1] for line in text.stdout.splitlines()[1:4]] == ["model", "identity", "mean"]
    noise = run(
        "evaluate", "--weights", weights["dcgan"], "--data", data / "pictures", "--threads", 1, "--format", "json"
    )
    assert isinstance(result_of(noise)["kid"], float)
    mixed = run("evaluate", "--weights", weights["dcgan"], "--data", data, "--threads", 1, "--format", "json")
    assert result_of(mixed)["split"] == "train"  # test/ holds pairs, the collection lies in pictures/


def test_data_commands(data, tmp_path):
    value = result_of(run("data", "split", "--input", data / "sheets", "--out", tmp_path / "s", "--format", "json"))
    assert value["pairs"] == {"train": 8}
    value = result_of(run("data", "scenes", "--scenes", data, "--out", tmp_path / "c", "--layout", "unpaired",
                          "--test-objects", "thing0,thing2", "--format", "json"))  # fmt: skip
    assert value["pictures"]["testA"] == 4
    value = result_of(run("data", "check", "--data", data, "--layout", "paired", "--format", "json"))
    assert value["train"]["B"] == {"pictures": 8, "size": [32, 32]}


def test_convert_stores_half_precision(weights, tmp_path):
    out = tmp_path / "half"
    value = result_of(
        run("convert", "--input", weights["cyclegan"], "--out", out, "--dtype", "fp16", "--format", "json")
    )
    assert value["generators"] == ["AB", "BA"]
    full, half = (folder / "generator_AB.safetensors" for folder in (weights["cyclegan"], out))
    assert half.stat().st_size < 0.75 * full.stat().st_size
    assert not list(out.glob("discriminator*"))


def test_settings_round_trip(tmp_path):
    first = run("settings", "pix2pix", *sets("model.norm=group", "train.batch_size=4"))
    (tmp_path / "c.json").write_text(first.stdout)
    again = run("settings", "pix2pix", "--config", tmp_path / "c.json")
    assert again.stdout == first.stdout
    assert json.loads(again.stdout)["model"]["norm"] == {"kind": "group", "groups": None, "channels_per_group": None}
    (tmp_path / "c.yaml").write_text("train:\n  lr: 1e-3\n")
    flag = run("settings", "pix2pix", "--config", tmp_path / "c.yaml", *sets("train.lr=0.5"))
    assert json.loads(flag.stdout)["train"]["lr"] == 0.5
    assert json.loads(run("settings", "pix2pix", "--config", tmp_path / "c.yaml").stdout)["train"]["lr"] == 0.001
    kept = json.loads(run("settings", "pix2pix", *sets("model.generator.width=7")).stdout)["model"]["generator"]
    assert (kept["kind"], kept["dropout"]) == ("unet", True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "stargan"], "unknown name 'stargan'"),
        (["train", "cyclegan", "--set", "train.stpes=1"], "did you mean 'steps'"),
        (["train", "cyclegan", "--set", "train.steps=0"], "--set train.steps: found 0"),
        (["train", "cyclegan", "--set", "train.steps"], "--set: found 'train.steps'"),
        (["train", "cyclegan", "--set", "train..steps=1"], "--set: found 'train..steps=1'"),
        (["train", "cyclegan", "--set", "train.lr=Infinity"], "found inf; allowed: Input should be a finite number"),
        (["train", "cyclegan", "--set", "model=unet"], "--set model: found 'unet'"),
        (["train", "cyclegan", "--set", "model.name=modified-cyclegan"], "found 'modified-cyclegan' beside 'cyclegan'"),
        (
            ["train", "cyclegan", "--set", "model.generator.kind=unet"],
            "256 divides, or a smaller model.generator.downs",
        ),
        (["train", "cyclegan", "--set", "model.discriminator.n_layers=5"], "model.discriminator.n_layers"),
        (["train", "cyclegan", "--set", "model.norm=group", "--set", "model.norm.groups=7"], "7 groups"),
        (["train", "cyclegan", "--set", "train.precision=fp16", "--set", "train.cpu=true"], "fp16 on a CPU"),
        (["train", "cyclegan", "--set", "data.size=48"], "48 px from pictures of 32x32 px"),
        (["train", "cyclegan", "--set", "data.size=4"], "4x4 px; allowed: sides from 8 px"),
        (
            ["train", "cyclegan", "--set", "model.discriminator.scales=3"],
            "n_layers: found 3 with scales 3 for pictures of 32x32 px; allowed: less of either, or sides from 96 px",
        ),
        (["train", "modified-cyclegan", "--set", "model.feature_layer=4"], "feature_layer 4 of a discriminator with 4"),
        (["train", "modified-cyclegan", "--set", "model.alpha_start=0.95"], "alpha_end 0.9 is below alpha_start 0.95"),
        (["train", "dcgan", "--preset", "published"], "pictures of 32x32 px for model.size 64"),
        (["train", "cyclegan", "--resume"], "--resume: found no run"),
        (["train", "cyclegan", "--resume", "--preset", "small"], "--preset: found 'small' beside --resume"),
        (["train", "cyclegan", "--preset", "tiny"], "unknown name 'tiny'; allowed: published, small"),
    ],
)
def test_bad_settings_end_with_2_and_write_nothing(data, tmp_path, capsys, monkeypatch, arguments, message):
    code, line = fails(capsys, monkeypatch, *arguments, "--data", data, "--out", tmp_path / "out")
    assert code == 2
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_bad_pictures_end_with_2(data, weights, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    for side in "AB":
        write(tmp_path / "odd" / f"train{side}", size=30)
        write(tmp_path / "mixed" / f"train{side}")
        write(tmp_path / "torn" / f"train{side}")
    picture(0, 48).save(tmp_path / "mixed" / "trainB" / "3.png")
    torn = tmp_path / "torn" / "trainB" / "3.png"
    torn.write_bytes(torn.read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_text("x")
    write(tmp_path / "last", 2)
    (tmp_path / "last" / "9.png").write_text("x")
    below = tmp_path / "bad.png" / "out"
    monkeypatch.chdir(tmp_path / "empty")
    use = ["translate", "--weights", weights["cyclegan"], "--output", out, "--input"]
    for arguments, message in (
        (
            ["train", "cyclegan", "--preset", "published", "--data", tmp_path / "odd", "--out", out],
            "sides that 4 divides",
        ),
        (["train", "cyclegan", "--data", tmp_path / "empty", "--out", out], "nothing in it"),
        (["train", "cyclegan", "--preset", "published", "--data", tmp_path / "mixed", "--out", out], "mixed sizes"),
        (["train", "cyclegan", "--data", tmp_path / "torn", "--out", out], "3.png', damaged"),
        # what is cheap to see is seen before pictures are decoded
        (
            ["train", "cyclegan", "--data", tmp_path / "torn", "--out", out, *sets("model.discriminator.n_layers=5")],
            "5 with scales 1",
        ),
        ([*use, tmp_path / "empty"], "no picture in"),
        ([*use, tmp_path / "bad.png"], "damaged or not a picture"),
        ([*use, tmp_path / "none.png"], "missing"),
        ([*use, tmp_path / "last"], "9.png', damaged or not a picture"),
        ([*use, data / "testA", "--direction", "AC"], "--direction: found 'AC'; allowed: AB, BA"),
        (["sample", "--weights", weights["cyclegan"], "--output", out], "weights of a dcgan"),
        (["data", "check", "--data", data, "--layout", "cube"], "unknown name 'cube'"),
        (["train", "cyclegan", "--data", data, "--out", below], "bad.png' cannot be written"),
        (["data", "split", "--input", data / "sheets", "--out", below], "bad.png' cannot be written"),
        (["convert", "--input", weights["cyclegan"], "--out", below], "bad.png' cannot be written"),
        (["convert", "--input", weights["cyclegan"], "--out", "."], "found the working folder"),
        (["convert", "--input", weights["cyclegan"], "--out", out, "--direction", "XY"], "unknown name 'XY'"),
    ):
        code, line = fails(capsys, monkeypatch, *arguments)
        assert (code, message in line, "\n" in line) == (2, True, False), line
    assert not out.exists()
