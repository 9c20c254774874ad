"""Files: weights that describe themselves, legacy import, data folders with every fault."""

import json
import pickle
import shutil
from collections import OrderedDict

import pytest
import torch
from gan_toy import FAST, TINY, picture, write
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from freectl.mini.export import scenes
from freectl.mini.scene import render
from gan_baselines import record
from gan_baselines.cli import app
from gan_baselines.data.folders import Source, find_sources
from gan_baselines.data.pictures import read_picture, to_image, to_range, to_tensor
from gan_baselines.data.prepare import check_folder, split_sheets
from gan_baselines.data.scenes import from_scenes
from gan_baselines.data.sets import PictureSet
from gan_baselines.errors import InputError
from gan_baselines.inference import translate
from gan_baselines.legacy import read_legacy
from gan_baselines.settings import resolve
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights, save_weights, started


def built(name, *sets):
    config = resolve(name, None, [*TINY[name], *sets]).model
    return config, started(config)


def test_weights_folder_alone_rebuilds_the_networks(tmp_path):
    config, net = built("pix2pix", "model.norm=group", "model.norm.groups=2")
    save_weights(tmp_path / "w", config, dict(net.generators), dict(net.discriminators), about={"steps": 3})
    loaded = load_weights(tmp_path / "w")
    assert loaded.model == config
    assert loaded.about == {"steps": 3}
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.generators["AB"](x), net.generators["AB"].eval()(x))


def test_half_precision_halves_the_file_and_keeps_the_picture(tmp_path):
    config, net = built("cyclegan")
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_weights(tmp_path / name, config, dict(net.generators), dtype=dtype)
    stored = load_file(tmp_path / "half" / "generator_AB.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    made = [load_weights(tmp_path / n).generators["AB"](x) for n in ("full", "half")]
    assert (made[0] - made[1]).abs().max() < 0.01


def test_shipped_weights_go_by_name(tmp_path, monkeypatch):
    config, net = built("cyclegan")
    monkeypatch.setattr(record, "SHIPPED", tmp_path / "shipped")
    save_weights(tmp_path / "shipped" / "some-name", config, dict(net.generators), about={"steps": 1})
    assert load_weights("some-name").about == {"steps": 1}
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "some-name", config, dict(net.generators), about={"steps": 2})
    assert load_weights("some-name").about == {"steps": 2}  # a folder of that name comes first
    with pytest.raises(InputError, match="name of shipped weights: some-name"):
        load_weights("other")


@pytest.mark.parametrize("name", record.shipped_names())
def test_shipped_weights_are_small_and_translate_scenes(name):
    files = list((record.SHIPPED / name).glob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    assert {t.dtype for path in files for t in load_file(path).values() if t.is_floating_point()} == {torch.float16}
    loaded = load_weights(name)
    pairs = [(scene, scene.with_words(style="fluent")) for scene in scenes(8, 3, ("noto",))]
    before, wanted = (torch.stack([to_range(to_tensor(render(s))) for s in side]) for side in zip(*pairs, strict=True))
    direction = loaded.translators["AB"]
    if name == "adain-mini":  # each in its own style, and in another picture's
        own, other = before, before.roll(1, 0)
        made, changed = (
            torch.stack(
                [translate(direction, x, loaded.multiple, style=loaded.network.style_of("AB", s)) for x, s in pairs]
            )
            for pairs in (zip(before, own, strict=True), zip(before, other, strict=True))
        )
        assert (made - before).abs().mean() < 0.3 < (changed - before).abs().mean()
        return
    made = torch.stack([translate(direction, x, loaded.multiple, dropout=False) for x in before])
    # whatever it makes of the object, it keeps the place and the background
    assert (made - wanted).abs().mean() < 0.3
    assert (made - before).abs().mean() > 0.02


def test_discriminators_start_from_an_earlier_run(tmp_path):
    config, net = built("cyclegan")
    save_weights(tmp_path / "w", config, dict(net.generators), dict(net.discriminators))
    modified, other = built("modified-cyclegan", f"model.discriminators_from={tmp_path / 'w'}")
    for name, weight in net.discriminators.state_dict().items():
        assert torch.equal(other.discriminators.state_dict()[name], weight)
    save_weights(tmp_path / "m", modified, dict(other.generators))
    (tmp_path / "w" / "config.json").unlink()
    assert load_weights(tmp_path / "m").generators.keys() == {"AB", "BA"}  # the earlier folder is not needed any more
    with pytest.raises(InputError, match="model.discriminators_from"):
        built("modified-cyclegan", f"model.discriminators_from={tmp_path / 'w'}")


@pytest.mark.parametrize("fault", ["none", "run", "config", "format", "weights", "shape"])
def test_damaged_weights_are_one_line(tmp_path, fault):
    config, net = built("cyclegan")
    folder = tmp_path / "w"
    save_weights(folder, config, dict(net.generators))
    if fault == "none":
        folder = tmp_path / "nowhere"
    elif fault == "run":
        folder = folder.rename(tmp_path / "weights").parent
    elif fault == "config":
        (folder / "config.json").write_text("{")
    elif fault == "format":
        (folder / "config.json").write_text('{"format": "other"}')
    elif fault == "weights":
        (folder / "generator_AB.safetensors").write_bytes(b"x" * 100)
    else:
        stored = json.loads((folder / "config.json").read_text())
        stored["model"]["generator"]["width"] = 5
        (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="^--weights: found ") as error:
        load_weights(folder)
    assert "\n" not in str(error.value)


class LegacyBlock(nn.Module):
    """A residual block with the names that old files have."""

    def __init__(self, width, dropout):
        super().__init__()
        middle = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width, track_running_stats=True),
            nn.ReLU(), *middle, nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, track_running_stats=True),
        )  # fmt: skip

    def forward(self, x):
        return x + self.conv_block(x)


def legacy_resnet(w, blocks, dropout=False):
    """The residual generator as a flat list, with instance norms that carry running statistics, as old files do."""

    def norm(width):
        return nn.InstanceNorm2d(width, track_running_stats=True)

    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), norm(w), nn.ReLU()]
    layers += [nn.Conv2d(w, 2 * w, 3, 2, 1), norm(2 * w), nn.ReLU()]
    layers += [nn.Conv2d(2 * w, 4 * w, 3, 2, 1), norm(4 * w), nn.ReLU()]
    layers += [LegacyBlock(4 * w, dropout) for _ in range(blocks)]
    layers += [nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1), norm(2 * w), nn.ReLU()]
    layers += [nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), norm(w), nn.ReLU()]
    net = nn.Module()
    net.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())
    return net


class LegacyUnetBlock(nn.Module):
    """One level of a U-Net that holds the next level inside, as old files name it."""

    def __init__(self, outer, inner, inside=None, outermost=False):
        super().__init__()
        into = 3 if outermost else outer
        down = nn.Conv2d(into, inner, 4, 2, 1, bias=False)
        width = inner if inside is None else 2 * inner
        if outermost:
            up = nn.ConvTranspose2d(width, 3, 4, 2, 1)
            layers = [down, inside, nn.ReLU(), up, nn.Tanh()]
        else:
            up = [nn.ReLU(), nn.ConvTranspose2d(width, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
            layers = [nn.LeakyReLU(0.2), down, *([] if inside is None else [nn.BatchNorm2d(inner), inside]), *up]
        self.model, self.outermost = nn.Sequential(*layers), outermost

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


@pytest.mark.parametrize("dropout", [False, True])
def test_legacy_resnet_gives_the_same_picture(tmp_path, dropout):
    net = legacy_resnet(4, 2, dropout)
    torch.save(OrderedDict(("module." + k, v) for k, v in net.state_dict().items()), tmp_path / "net_G_A.pth")
    model, mine = read_legacy(tmp_path / "net_G_A.pth")
    assert (model.name, model.generator.width, model.generator.blocks) == ("cyclegan", 4, 2)
    for part in net.modules():
        part.training = isinstance(part, nn.InstanceNorm2d)  # statistics of the picture, as instance norm means
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(mine.eval()(x), net.model(x), atol=1e-6, rtol=1e-5)
    options = ["--input", str(tmp_path / "net_G_A.pth"), "--out", str(tmp_path / "w"), "--direction", "BA"]
    assert CliRunner().invoke(app, ["convert", *options]).exit_code == 0
    assert torch.equal(load_weights(tmp_path / "w").generators["BA"](x), mine(x))


def test_training_goes_on_from_a_published_file_of_each_direction(data, tmp_path):
    nets = {way: legacy_resnet(4, 1) for way in ("AB", "BA")}
    for way, net in nets.items():
        torch.save(net.state_dict(), tmp_path / f"{way}.pth")
        options = ["--input", str(tmp_path / f"{way}.pth"), "--out", str(tmp_path / way), "--direction", way]
        assert CliRunner().invoke(app, ["convert", *options]).exit_code == 0
    both = f"model.generators_from={tmp_path / 'AB'},{tmp_path / 'BA'}"
    train("cyclegan", data, tmp_path / "r", sets=[*FAST, *TINY["cyclegan"], "train.steps=1", "train.lr=1e-12", both])
    x = torch.randn(1, 3, 32, 32)
    for way, net in nets.items():
        for part in net.modules():
            part.training = isinstance(part, nn.InstanceNorm2d)
        made = load_weights(tmp_path / "r" / "weights").generators[way](x)
        torch.testing.assert_close(made, net.model(x), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="with generators AB; allowed: one with 'BA'"):
        built("cyclegan", f"model.generators_from={tmp_path / 'AB'}")


def test_legacy_unet_gives_the_same_picture(tmp_path):
    inside = LegacyUnetBlock(32, 32)
    for outer, inner in ((16, 32), (8, 16), (4, 8)):
        inside = LegacyUnetBlock(outer, inner, inside)
    net = nn.Module()
    net.model = LegacyUnetBlock(4, 4, inside, outermost=True)
    torch.save(net.state_dict(), tmp_path / "g.pth")
    model, mine = read_legacy(tmp_path / "g.pth", dropout=False)
    assert (model.name, model.generator.downs, model.norm.kind) == ("pix2pix", 5, "batch")
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(mine.eval()(x), net.eval().model(x), atol=1e-6, rtol=1e-5)


def test_legacy_files_are_read_as_they_compute_or_refused(tmp_path):
    torch.save(legacy_resnet(4, 2, True).state_dict(), tmp_path / "g.pth")
    model, _ = read_legacy(tmp_path / "g.pth")
    assert model.generator.dropout  # the second convolution of a block has the number 6 instead of 5
    with pytest.raises(InputError, match="--no-dropout: found .* whose layers say --dropout"):
        read_legacy(tmp_path / "g.pth", dropout=False)
    plain = legacy_resnet(4, 2).state_dict()
    refused = {
        "zero": {name.replace("block.1.", "block.0.").replace("block.5.", "block.3."): t for name, t in plain.items()},
        "resize": {**plain, "model.12.weight": torch.zeros(8, 16, 3, 3), "model.15.weight": torch.zeros(4, 8, 3, 3)},
        "affine": {**plain, "model.2.weight": torch.ones(4), "model.5.weight": torch.ones(8)},
    }
    del refused["affine"]["model.2.running_mean"]
    for name, state in refused.items():
        torch.save(state, tmp_path / f"{name}.pth")
    for name, message in (("zero", "zero padding"), ("resize", "interpolation"), ("affine", "no running statistics")):
        with pytest.raises(InputError, match=message):
            read_legacy(tmp_path / f"{name}.pth")


def test_a_deep_legacy_unet_must_be_asked_for_its_dropout(tmp_path):
    inside = LegacyUnetBlock(16, 16)
    for outer, inner in ((16, 16), (8, 16), (4, 8), (2, 4)):
        inside = LegacyUnetBlock(outer, inner, inside)
    net = nn.Module()
    net.model = LegacyUnetBlock(2, 2, inside, outermost=True)
    torch.save(net.state_dict(), tmp_path / "g.pth")
    with pytest.raises(InputError, match="--dropout: found nothing for the U-Net"):
        read_legacy(tmp_path / "g.pth")
    made = [read_legacy(tmp_path / "g.pth", dropout=asked)[1] for asked in (True, False)]
    assert [any(isinstance(part, nn.Dropout) for part in net.modules()) for net in made] == [True, False]


class Trap:
    def __reduce__(self):
        return (exit, (3,))


def test_legacy_import_runs_no_code_and_refuses_other_files(tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"a": Trap()}, tmp_path / "trap2.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    state = legacy_resnet(4, 1).state_dict()
    state["model.4.weight"] = torch.zeros(8, 5, 3, 3)
    torch.save(state, tmp_path / "shape.pth")
    for name in ("trap", "trap2", "list", "linear", "shape", "missing"):
        with pytest.raises(InputError, match="^--input: found "):
            read_legacy(tmp_path / f"{name}.pth")


def test_pictures_of_every_mode_become_rgb(tmp_path):
    for mode, colour, expected in (
        ("L", 100, 100), ("P", 0, None), ("RGBA", (100, 100, 100, 255), 100), ("RGBA", (0, 0, 0, 0), 255),
        ("I;16", 100 * 257, 100), ("LA", (100, 255), 100),
    ):  # fmt: skip
        Image.new(mode, (4, 4), colour).save(tmp_path / "x.png")
        image = read_picture(tmp_path / "x.png")
        assert image.mode == "RGB"
        assert expected is None or image.getpixel((0, 0)) == (expected,) * 3
    turned = Image.new("RGB", (4, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "t.jpg", exif=exif)
    assert read_picture(tmp_path / "t.jpg").size == (8, 4)
    again = to_image(to_range(to_tensor(picture(3))))
    assert again.tobytes() == picture(3).tobytes()


def _fault(tmp_path, fault):
    root = tmp_path / "d"
    for side in "AB":
        write(root / f"train{side}", size=32)
    if fault == "empty":
        for path in (root / "trainB").iterdir():
            path.unlink()
    elif fault == "mixed":
        picture(0, 48).save(root / "trainA" / "3.png")
    elif fault == "corrupt":
        whole = (root / "trainA" / "3.png").read_bytes()
        (root / "trainA" / "3.png").write_bytes(whole[: len(whole) // 2])
    elif fault == "text":
        (root / "trainA" / "3.png").write_text("no picture")
    return root


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "no picture in"),
        ("mixed", "mixed sizes"),
        ("corrupt", "damaged"),
        ("text", "damaged"),
        ("side", "no folder"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, fault, message):
    root = tmp_path / "nowhere" if fault == "side" else _fault(tmp_path, fault)
    with pytest.raises(InputError, match=message) as error:
        check_folder(root, "unpaired")
    assert "\n" not in str(error.value)


def test_mixed_sizes_are_fine_when_resized(tmp_path):
    source = find_sources(_fault(tmp_path, "mixed"), "unpaired")["A"]
    assert PictureSet(source, load_size=40).take([3, 4]).shape == (2, 3, 40, 40)


def test_layouts_are_found(data, tmp_path):
    assert [len(s.files) for s in find_sources(data, "unpaired").values()] == [8, 8]
    assert find_sources(data, "single")["picture"].files[0].parent.name == "pictures"
    sheets = find_sources_of_sheets(data, tmp_path)
    left, right = (PictureSet(sheets[side]).take([2])[0] for side in "AB")
    assert torch.equal(left, to_tensor(picture(2)))
    assert torch.equal(right, to_tensor(picture(2, invert=True)))
    (tmp_path / "p" / "train" / "A").mkdir(parents=True)
    with pytest.raises(InputError, match="allowed: a folder with trainA/ and trainB/"):
        find_sources(tmp_path / "p", "unpaired")


def test_rotation_noted_behind_the_pixels_is_one_line(tmp_path):
    image, path = Image.new("RGB", (4, 8)), tmp_path / "x.png"
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    whole = path.read_bytes()
    start = whole.index(b"eXIf") - 4
    note = whole[start : start + 12 + int.from_bytes(whole[start : start + 4], "big")]
    path.write_bytes(whole.replace(note, b"")[:-12] + note + whole[-12:])
    assert read_picture(path).size == (8, 4)
    with pytest.raises(InputError, match="turns to 8x4 px; allowed: 4x8 px"):
        PictureSet(Source((path,))).take([0])


def find_sources_of_sheets(data, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "train").symlink_to(data / "sheets")
    return find_sources(tmp_path / "s", "paired")


def test_split_sheets_and_lonely_files(data, tmp_path):
    assert split_sheets(data / "sheets", tmp_path / "out") == {"train": 8}
    assert read_picture(tmp_path / "out/train/B/5.png").tobytes() == picture(5, invert=True).tobytes()
    (tmp_path / "out/train/A/5.png").unlink()
    with pytest.raises(InputError, match="'5' on one side only"):
        find_sources(tmp_path / "out", "paired")
    picture(4).save(tmp_path / "out/train/A/4.jpg")
    with pytest.raises(InputError, match="several files named '4'"):
        find_sources(tmp_path / "out", "paired")


def test_bad_sheets_and_scenes_leave_nothing_written(data, tmp_path):
    sheets = tmp_path / "sheets"
    shutil.copytree(data / "sheets", sheets)
    (sheets / "7.jpg").write_bytes((sheets / "7.png").read_bytes())
    with pytest.raises(InputError, match="several files named '7'"):
        split_sheets(sheets, tmp_path / "out")
    (sheets / "7.jpg").rename(sheets / "7.png")
    picture(0, 33).save(sheets / "8.png")
    with pytest.raises(InputError, match="8.png' of odd width 33"):
        split_sheets(sheets, tmp_path / "out")
    (sheets / "8.png").write_text("x")
    with pytest.raises(InputError, match="8.png', damaged"):
        split_sheets(sheets, tmp_path / "out")
    shutil.copy(data / "scenes.jsonl", sheets)
    with pytest.raises(InputError, match="--scenes: found .*0.png', missing"):
        from_scenes(sheets, tmp_path / "out", "paired", test_objects=["thing1"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["paired", "unpaired"])
def test_scenes_are_split_by_object(data, tmp_path, layout):
    report = from_scenes(data, tmp_path / "out", layout, test_objects=["thing1"])
    names = {p.parent.relative_to(tmp_path / "out").as_posix(): set() for p in (tmp_path / "out").rglob("*.png")}
    for path in (tmp_path / "out").rglob("*.png"):
        names[path.parent.relative_to(tmp_path / "out").as_posix()].add(path.stem)
    test, train = ("test/A", "train/A") if layout == "paired" else ("testA", "trainA")
    assert names[test] == names[test.replace("A", "B")] == {"1", "5"}
    others = {"0", "2", "3", "4", "6", "7"}
    if layout == "paired":
        assert names[train] == names["train/B"] == others
    else:
        assert names[train] | names["trainB"] == others
        assert not names[train] & names["trainB"]  # no training picture has its counterpart
    assert report["test_objects"] == ["thing1"]
    with pytest.raises(InputError, match="--test-objects: found 'cow'"):
        from_scenes(data, tmp_path / "new", layout, test_objects=["cow"])
