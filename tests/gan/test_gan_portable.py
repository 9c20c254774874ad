"""ONNX files against the commands that use the same weights, on other numbers than those that wrote them."""

import json

import pytest
import torch
from gan_toy import TINY
from typer.testing import CliRunner

from gan_baselines.cli import app
from gan_baselines.inference import sample, translate
from gan_baselines.models import build
from gan_baselines.portable import export_onnx
from gan_baselines.settings import resolve
from gan_baselines.weights import load_weights, save_weights

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def stored(tmp_path):
    """A function that stores a tiny model, its weights three times as large, so that pictures have contrasts."""

    def store(name, *sets):
        torch.manual_seed(0)
        model = build(resolve(name, None, [*TINY[name], *sets]).model)
        with torch.no_grad():
            for weight in model.generators.parameters():
                weight.mul_(3)
        save_weights(tmp_path / name, model.config, model.generators, translators=sorted(model.translators))
        return load_weights(tmp_path / name)

    return store


def run(file, **inputs):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_a_translator_with_batch_norm_gives_what_translate_gives(stored, tmp_path):
    """Batch norm of the picture's own statistics, dropout off."""
    net, picture = stored("pix2pix", "model.generator.dropout=true"), random(3, 32, 32)
    told = export_onnx(net, tmp_path / "out", 32)
    expected = translate(net.translators["AB"], picture, net.multiple, dropout=False)
    assert expected.std() > 0.05
    torch.testing.assert_close(run(tmp_path / "out/AB.onnx", picture=picture[None])[0], expected, rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "out/about.json").read_text()) == {"model": "pix2pix", "files": told}
    again = translate(net.translators["AB"], picture, net.multiple, dropout=False)
    assert torch.equal(again, expected)  # the weights are as they were


def test_styles_are_read_and_given(stored, tmp_path):
    net, picture, target = stored("bicyclegan"), random(3, 32, 32), random(3, 32, 32).flip(1)
    export_onnx(net, tmp_path / "out", 32)
    style = run(tmp_path / "out/AB.style.onnx", target=target[None])
    torch.testing.assert_close(style, net.network.style_of("AB", target[None]), rtol=0, atol=1e-4)
    expected = translate(net.translators["AB"], picture, net.multiple, dropout=False, style=style)
    found = run(tmp_path / "out/AB.onnx", picture=picture[None], style=style)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-4)


def test_samples_are_those_of_sample(stored, tmp_path):
    net = stored("dcgan")
    export_onnx(net, tmp_path / "out")
    noise = torch.stack([torch.randn(100, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)])
    expected = torch.stack(list(sample(net.noise_generator, 2, 7)))
    torch.testing.assert_close(run(tmp_path / "out/sample.onnx", noise=noise), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "full"], "--out: found 'full', which is not an empty folder"),
        (["--out", "new", "--size", "20"], "--size: found 20; allowed: multiples of 16"),
        (["--out", "new", "--weights", "nowhere"], "--weights: found 'nowhere'"),
    ],
)
def test_bad_input_is_a_line_and_writes_nothing(stored, tmp_path, monkeypatch, options, said):
    stored("pix2pix")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    given = options if "--weights" in options else ["--weights", "pix2pix", *options]
    assert said in str(CliRunner().invoke(app, ["export", *given]).exception)
    assert not (tmp_path / "new").exists()


def test_what_lacks_packages_says_how_to_install_them(stored, tmp_path, monkeypatch):
    stored("pix2pix")
    monkeypatch.setattr("gan_baselines.portable.find_spec", lambda name: None if name == "onnxscript" else name)
    done = CliRunner().invoke(app, ["export", "--weights", str(tmp_path / "pix2pix"), "--out", str(tmp_path / "new")])
    assert str(done.exception) == "onnxscript not installed: pip install 'freectl[onnx]'"
