"""`python -m eval.segment`: label maps of pictures by the judge, by torchvision's FCN and by transformers' models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.segmentation import fcn_resnet50
from torchvision.transforms import functional
from typer.testing import CliRunner

from eval.scores import segmenters
from eval.scores.segment import app
from eval.scores.segmenters import load_segmenter
from freectl.errors import FreectlError, InputError
from freectl.mini.export import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 20, 3, styles=("noto", "fluent"), layout="paired")
    return folder


def invoke(*options: object) -> object:
    return CliRunner().invoke(app, [str(option) for option in options])


def scored(pictures: Path, labels: Path, *more: object) -> dict:
    result = invoke("score", "--pictures", pictures, "--labels", labels, "--format", "json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_true_pictures_have_their_labels_and_others_do_not(scenes: Path, tmp_path: Path) -> None:
    assert invoke("labels", "--scenes", scenes, "--out", tmp_path / "labels").exit_code == 0
    true = scored(scenes / "test" / "B", tmp_path / "labels")
    assert (
        true["pictures"] == len(list((scenes / "test" / "B").iterdir())) == len(list((tmp_path / "labels").iterdir()))
    )
    assert true["pixel_accuracy"] > 0.95
    assert true["mean_iou"] > 0.8
    gray = tmp_path / "gray"
    gray.mkdir()
    for path in (scenes / "test" / "B").iterdir():
        Image.new("RGB", (64, 64), "gray").save(gray / path.name)
    assert scored(gray, tmp_path / "labels")["mean_iou"] < 0.5


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)


def test_an_fcn_of_torchvision_is_read_from_safetensors(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True).eval()
    save_file(network.state_dict(), tmp_path / "fcn.safetensors")
    monkeypatch.setattr(segmenters, "FCN_SIZE", 72)
    segment, names = load_segmenter(str(tmp_path / "fcn.safetensors"))
    assert len(names) == 5
    pixels = functional.resize(functional.to_tensor(picture), [72], antialias=True)
    pixels = functional.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        logits = network(pixels[None])["out"]
    expected = functional.resize(logits, [48, 64], antialias=False)[0].argmax(0)
    assert torch.equal(segment(picture, (48, 64)), expected)
    assert len(expected.unique()) > 1


def test_a_transformers_model_is_read_from_its_folder(picture: Image.Image, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, depths=[1] * 4, decoder_hidden_size=8
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})
    for part in (network, processor):
        part.save_pretrained(tmp_path)
    segment, names = load_segmenter(str(tmp_path))
    with torch.no_grad():
        output = network(**processor(images=picture, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(output, target_sizes=[(48, 64)])
    assert torch.equal(segment(picture, (48, 64)), expected)
    assert names == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]


@pytest.mark.parametrize(("name", "kind"), [
    ("nobody", InputError), ("wrong.safetensors", InputError), ("gone.safetensors", InputError),
    ("some/model", FreectlError)])  # fmt: skip
def test_segmenters_that_are_not_there_are_named(
    name: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, "wrong.safetensors")
    with pytest.raises(kind, match=rf"--segmenter.*{name}"):
        load_segmenter(name)


def test_folders_that_do_not_fit_are_refused(scenes: Path, tmp_path: Path) -> None:
    labels, pictures = tmp_path / "labels", tmp_path / "pictures"
    labels.mkdir()
    pictures.mkdir()

    def refused(named: str, *options: object) -> None:
        result = invoke(*options)
        assert isinstance(result.exception, InputError)
        assert named in str(result.exception)

    both = ("score", "--pictures", pictures, "--labels", labels)
    refused("--pictures", *both)
    Image.new("RGB", (64, 64)).save(pictures / "a.jpg")
    refused("--labels: found nothing for 'a.jpg'", *both)
    Image.new("RGB", (64, 64)).save(labels / "a.png")
    refused("in colours", *both)
    (labels / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")
    refused("unreadable", *both)  # and Ghostscript does not run: PNG is the one format of label maps
    Image.new("L", (64, 64), 200).save(labels / "a.png")
    refused("labels 0 to 16", *both)
    refused("--ignore", *both, "--ignore", 200)
    refused("--scenes", "labels", "--scenes", tmp_path, "--out", tmp_path / "out")
    for damaged in ("{", "[]", '{"picture": "test/B/a.png", "mask": "m.png", "object": "nothing"}'):
        (tmp_path / "scenes.jsonl").write_text(damaged)
        refused("scenes.jsonl', damaged", "labels", "--scenes", tmp_path, "--out", tmp_path / "out")
    (tmp_path / "scenes.jsonl").write_text('{"picture": "test/B/a.png", "mask": "m.png", "object": "fox"}')
    refused("no file", "labels", "--scenes", tmp_path, "--out", tmp_path / "out")
    refused("test/A, test/B, train/A, train/B", "labels", "--scenes", scenes, "--out", tmp_path / "out", "--part", "x")
    assert not (tmp_path / "out").exists()
