"""Faults of use: what pictures show, what stops a training, what weights and old files may not do."""

import ast
import json
import re
import signal
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
import torch
from gan_toy import FAST, TINY, picture, write
from PIL import EpsImagePlugin, Image, ImageCms
from safetensors.torch import save_file
from torch import nn

import gan_baselines
from eval.gans.method import Translator, training_of
from gan_baselines.data.pictures import read_picture
from gan_baselines.errors import GanError, InputError, TrainingStoppedError
from gan_baselines.inference import translate
from gan_baselines.models import build
from gan_baselines.record import read_record
from gan_baselines.settings import resolve
from gan_baselines.training.checks import wants_small
from gan_baselines.training.monitor import RunLog
from gan_baselines.training.run import Run, train
from gan_baselines.weights import load_weights, save_weights

PACKAGE = Path(gan_baselines.__file__).parent


def test_no_module_imports_itself_by_way_of_others():
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{part.name}" for node in found for part in node.names} | {
            node.module for node in found
        }
        graph[name] = {n for n in names if n and n.startswith("gan_baselines.") and n != name}
    assert "gan_baselines.models.base" in graph["gan_baselines.models"]
    TopologicalSorter(graph).prepare()  # raises where a circle is left


def test_every_open_says_which_formats():
    calls = [line for path in PACKAGE.rglob("*.py") for line in re.findall(r".*Image\.open\(.*", path.read_text())]
    assert calls
    assert all("formats=FORMATS" in line for line in calls)


def test_postscript_named_png_is_not_run(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a))
    (tmp_path / "shot.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="not a picture"):
        read_picture(tmp_path / "shot.png")
    assert not ran


def test_floats_and_16_bits_are_scaled_by_their_range(tmp_path):
    ramp = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    Image.fromarray(ramp).save(tmp_path / "f.tif")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "g.png")
    Image.fromarray(ramp * 4000 - 1000).save(tmp_path / "w.tif")
    for name in ("f.tif", "g.png", "w.tif"):
        shown = np.asarray(read_picture(tmp_path / name)).astype(float)
        assert np.abs(shown - np.rint(ramp * 255)[..., None]).max() <= 1


def test_a_colour_profile_is_applied(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"....", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"....", b"gXYZ", 1)
    image = Image.new("RGB", (4, 4), (200, 10, 30))
    image.save(tmp_path / "s.png", icc_profile=swapped)  # its red is what sRGB calls green
    shown = np.asarray(read_picture(tmp_path / "s.png")).astype(int)
    assert np.abs(shown[0, 0] - [10, 200, 30]).max() <= 1
    image.save(tmp_path / "d.png", icc_profile=b"damaged")
    assert read_picture(tmp_path / "d.png").getpixel((0, 0)) == (200, 10, 30)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_animations_and_pages_are_refused(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="animated or of several pages"):
        read_picture(tmp_path / name)


class Broken(nn.Module):
    def forward(self, x):
        return x * float("nan")


def tiny_weights(folder, **about):
    config = resolve("cyclegan", None, TINY["cyclegan"]).model
    nets = dict(build(config).generators)
    save_weights(folder, config, nets, about=about)
    return config, nets


def test_what_is_not_finite_never_becomes_a_picture(tmp_path):
    with pytest.raises(GanError, match="infinite or none"):
        translate(Broken(), torch.zeros(3, 8, 8), 4)
    config, nets = tiny_weights(tmp_path / "w")
    state = {name: tensor.clone() for name, tensor in nets["AB"].state_dict().items()}
    next(iter(state.values()))[0] = float("nan")
    save_file(state, tmp_path / "w" / "generator_AB.safetensors")
    with pytest.raises(InputError, match="infinite or not a number"):
        load_weights(tmp_path / "w")
    with torch.no_grad():
        next(nets["AB"].parameters())[0] = 1e5
    with pytest.raises(InputError, match="--dtype: found .* float16 does not hold"):
        save_weights(tmp_path / "h", config, nets, dtype=torch.float16)
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    "change",
    [{"generators": None}, {"generators": []}, {"generators": ["../x"]}, {"generators": "AB"}, {"model": 3},
     {"translators": ["up"]}, {"about": []}],
)  # fmt: skip
def test_records_that_do_not_fit_are_one_line(tmp_path, change):
    tiny_weights(tmp_path / "w")
    path = tmp_path / "w" / "config.json"
    stored = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))
    with pytest.raises(InputError, match="^--weights: found ") as error:
        load_weights(tmp_path / "w")
    assert "\n" not in str(error.value)


def test_editing_takes_models_of_several_parts_and_refuses_those_of_label_maps(tmp_path):
    picture(1).save(tmp_path / "p.png")
    for name, sets in (("munit", []), ("spade", ["model.labels=3", "model.size=32"])):
        config = resolve(name, None, [*TINY[name], *sets]).model
        net = build(config)
        save_weights(tmp_path / name, config, dict(net.generators), translators=sorted(net.translators))
    made = [Translator(tmp_path / "munit", "AB", seed)(picture(1)) for seed in (0, 0, 1)]
    assert made[0].size == (32, 32)
    assert made[0].tobytes() == made[1].tobytes()
    with pytest.raises(ValueError, match="which reads label maps"):
        Translator(tmp_path / "spade")


def test_names_that_no_file_can_have_are_one_line(tmp_path):
    with pytest.raises(InputError, match="without a readable config"):
        read_record(tmp_path / ("x" * 300))


def test_torn_and_foreign_log_lines_are_passed_over(tmp_path):
    run = tmp_path / "run"
    tiny_weights(run / "weights", steps=4, batch_size=2)
    lines = ['{"step": 2, "losses": {"G": 1.0}, "pictures_per_second": 4.0}', '{"step": "x", "losses": {}}', "[1]",
             '{"step": 3, "losses": 1}', '{"step": 4, "los']  # fmt: skip
    (run / "losses.jsonl").write_text("\n".join(lines))
    assert training_of(run / "weights")["seconds"] == 2.0
    assert RunLog(run / "losses.jsonl", 9).curves.steps == [2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_is_stored_and_goes_on_exactly(data, tmp_path, number):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=7", "train.log_every=3", "train.sample_every=9", "model.pool=2"]
    train("cyclegan", data, tmp_path / "straight", sets=sets)
    handler = signal.getsignal(number)
    run = Run(resolve("cyclegan", None, sets), data, tmp_path / "stopped", False)
    advance = run.trainer.advance

    def interrupted():
        if run.trainer.step == 4:
            signal.raise_signal(number)
        advance()

    run.trainer.advance = interrupted
    with pytest.raises(TrainingStoppedError, match="step 5 is stored in") as error:
        run.go()
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) == handler
    assert train("cyclegan", data, tmp_path / "stopped", resume=True)["trained"] == 2
    for part in ("weights", "checkpoints/step-000000007"):
        ends = [{p.name: p.read_bytes() for p in (tmp_path / r / part).iterdir()} for r in ("straight", "stopped")]
        assert ends[0] == ends[1]
    logs = [(tmp_path / r / "losses.jsonl").read_text().splitlines() for r in ("straight", "stopped")]
    assert [json.loads(line)["losses"] for line in logs[0]] == [json.loads(line)["losses"] for line in logs[1]]


def test_a_run_says_at_once_what_it_will_cost(data, tmp_path, capsys):
    run = Run(resolve("cyclegan", None, [*FAST, *TINY["cyclegan"], "train.steps=2"]), data, tmp_path / "r", False)
    begun, advance = [], run.trainer.advance

    def watched():
        begun.append([path.name for path in run.out.glob("samples/*")])
        advance()

    run.trainer.advance = watched
    run.go()
    assert begun[0] == ["step-000000000.png"]  # a grid before the first step
    said = capsys.readouterr().err
    assert re.search(r"first step: [\d.]+ s, [\d.]+ pictures/s; at this rate about \d+ seconds for 1 steps more", said)
    assert "equal names" in said  # the toy folder holds pairs, of which cyclegan knows nothing
    for side, count in (("A", 3), ("B", 4)):
        write(tmp_path / "own" / f"train{side}", count=count)
    Run(resolve("cyclegan", None, [*FAST, *TINY["cyclegan"], "train.steps=1"]), tmp_path / "own", tmp_path / "o", False)
    assert "equal names" not in capsys.readouterr().err


def test_the_small_preset_is_taken_where_nothing_is_said_and_no_gpu_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert wants_small(None, ["train.steps=5"])
    assert not wants_small(None, ["model.pool=0"])
    assert not wants_small(Path("c.json"), [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not wants_small(None, [])
    assert wants_small(None, ["train.cpu=true"])
    small, published = (resolve("cyclegan", None, (), name) for name in ("small", "published"))
    assert (small.data.size, published.data.size, small.train) == (64, None, published.train)
