"""Pictures of other channels: read and written without loss, through training, translation and measuring."""

import json

import numpy as np
import pytest
import torch
from gan_toy import FAST, TINY
from PIL import Image
from typer.testing import CliRunner

from gan_baselines.cli import app
from gan_baselines.data.augment import recolour
from gan_baselines.data.pictures import read_picture, shown, to_image, to_range, to_tensor
from gan_baselines.errors import InputError
from gan_baselines.evaluate import evaluate
from gan_baselines.settings import resolve
from gan_baselines.training.run import train
from gan_baselines.weights import load_weights

RNG = np.random.default_rng(0)


def values(form, side=32):
    if form == "grey16":
        return RNG.integers(0, 65536, (side, side)).astype(np.uint16)
    shape = {"grey": (side, side), "rgb": (side, side, 3), "rgba": (side, side, 4)}[form]
    return RNG.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("form", ["rgb", "grey", "grey16", "rgba"])
def test_what_is_read_is_written_again(form, tmp_path):
    pixels = values(form)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = to_range(to_tensor(read_picture(tmp_path / "a.png", form=form)))
    assert tensor.shape == ({"rgb": 3, "rgba": 4}.get(form, 1), 32, 32)
    assert -1 <= tensor.min() <= tensor.max() <= 1
    to_image(tensor, form).save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        np.testing.assert_array_equal(np.asarray(again), pixels)


def test_any_file_is_read_as_any_form(tmp_path):
    """Grey by the luminance, eight bits as the highest of sixteen, opaque where nothing says otherwise."""
    colours, deep, clear = values("rgb"), values("grey16"), values("rgba")
    for name, pixels in (("rgb", colours), ("grey16", deep), ("rgba", clear)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def read(name, form):
        return np.asarray(read_picture(tmp_path / f"{name}.png", form=form), dtype=np.float64)

    luminance = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read("rgb", "grey") - luminance).max() <= 1
    assert np.abs(read("rgb", "grey16") - 257 * luminance).max() <= 257
    assert np.abs(read("grey16", "grey") - deep / 257).max() <= 1
    assert (read("rgb", "rgba")[..., 3] == 255).all()
    np.testing.assert_array_equal(read("rgba", "rgba"), clear)
    seen = shown(to_range(to_tensor(read_picture(tmp_path / "rgba.png", form="rgba")))[None])[0]
    white = to_range(to_tensor(read_picture(tmp_path / "rgba.png")))
    assert (seen - white).abs().max() < 2 / 127.5


def test_colours_of_grey_and_clear_pictures_change_as_those_of_rgb():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = recolour(torch.cat([x, x[:, :1]], 1), 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(both[:, :3], recolour(x, 0.3, torch.Generator().manual_seed(1)))
    assert torch.equal(both[:, 3:], x[:, :1])
    grey = recolour(x[:, :1], 0.3, torch.Generator().manual_seed(1))
    of_three = recolour(x[:, :1].expand(-1, 3, -1, -1), 0.3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(grey, of_three[:, :1], rtol=0, atol=1e-5)  # without colours there is no saturation


def test_a_model_from_16_bits_to_transparency(tmp_path):
    for split in ("train", "test"):
        for side, form in (("A", "grey16"), ("B", "rgba")):
            folder = tmp_path / "data" / split / side
            folder.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(values(form)).save(folder / f"{index}.png")
    sets = ["model.form_a=grey16", "model.form_b=rgba", "train.steps=1", "data.colour=0.1"]
    train("pix2pix", tmp_path / "data", tmp_path / "run", sets=[*FAST, *TINY["pix2pix"], *sets])
    weights = load_weights(tmp_path / "run" / "weights")
    assert weights.network.discriminators["B"].scales[0][0][0].in_channels == 1 + 4
    with Image.open(next((tmp_path / "run" / "samples").glob("*.png"))) as grid:
        assert grid.mode == "RGB"
    found = evaluate(weights, tmp_path / "data")["AB"]
    assert set(found) == {"model", "mean"}  # one channel is no answer of four
    assert found["model"]["l1"] > 0
    options = ["--weights", tmp_path / "run/weights", "--input", tmp_path / "data/test/A", "--output", tmp_path / "out"]
    assert CliRunner().invoke(app, ["translate", *map(str, options)]).exit_code == 0
    with Image.open(tmp_path / "out" / "0.png") as made:
        assert made.mode == "RGBA"
    record = json.loads((tmp_path / "run/weights/config.json").read_text())["model"]
    assert (record["form_a"], record["form_b"]) == ("grey16", "rgba")


def test_unequal_channels_have_no_identity_loss():
    sets = [*TINY["cyclegan"], "model.form_a=grey"]
    with pytest.raises(InputError, match="unequal channels"):
        resolve("cyclegan", None, sets)
    assert resolve("cyclegan", None, [*sets, "model.lambda_identity=0"]).model.form("A") == "grey"
