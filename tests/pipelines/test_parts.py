"""Model folders that are not what they say: missing, pickled, damaged, foreign and incomplete parts, and variants."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ldm_layout import single_file
from PIL import Image
from safetensors.torch import load_file, save_file
from toy import toy_text_encoder

import freectl
from freectl import methods
from freectl.errors import InputError
from freectl.models import families
from freectl.pipelines.loading import check_adapters, load_pipeline, resolve_model

TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(true_pipes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "sd1"
    true_pipes["sd1"].save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def load(folder: Path) -> Any:
    pipe = load_pipeline(resolve_model(str(folder)), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            at = folder / name
            shutil.rmtree(at) if at.is_dir() else at.unlink()

    return change


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-8])


def pickle_text(folder: Path) -> None:
    (folder / TEXT).unlink()
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(b"anything")


def shards(folder: Path, *names: str) -> None:
    tensors = load_file(folder / TEXT)
    (folder / TEXT).unlink()
    held = dict.fromkeys(tensors, names[0])
    content = json.dumps({"metadata": {"total_size": 1}, "weight_map": held})
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(content)
    save_file(tensors, folder / "text_encoder" / "model-00001-of-00001.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (remove("tokenizer"), "without 'tokenizer', which its model_index.json names"),
        (lambda f: index(f, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]), "'safety_checker'"),
        (remove("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"), "tokenizer/ lacks its files"),
        (remove("scheduler/scheduler_config.json"), "scheduler/ lacks its files"),
        (remove("vae/config.json"), "vae/ has no config.json"),
        (remove(TEXT), "text_encoder/ has no weights"),
        (pickle_text, r"text_encoder/ holds only pickled weights \(pytorch_model.bin\), which can run any code"),
        (truncate(TEXT), "text_encoder/model.safetensors, damaged or truncated"),
        (truncate("unet/diffusion_pytorch_model.safetensors"), "unet/.*, damaged or truncated"),
        (
            lambda f: shards(f, "model-00002-of-00002.safetensors"),
            "names model-00002-of-00002.safetensors, which",
        ),
        (lambda f: shards(f, "pytorch_model-00001.bin"), "names pickled weights"),
        (lambda f: index(f, vae=["os", "system"]), "'vae' is 'os.system'.*own code is not run"),
        (lambda f: index(f, vae=["my_code", "AutoencoderKL"]), "'vae' is 'my_code.AutoencoderKL'"),
        (lambda f: index(f, vae=["diffusers", ["AutoencoderKL"]]), "'vae' is "),
        (lambda f: index(f, vae=["diffusers", "models.AutoencoderKL"]), "'vae' is 'diffusers.models.AutoencoderKL'"),
        (lambda f: index(f, unet="UNet2DConditionModel"), "folder .* of a StableDiffusionPipeline"),
        (lambda f: (f / "model_index.json").write_text("[" * 100_000), "damaged"),
    ],
)
def test_folders_that_are_not_whole_are_refused_before_loading(folder, change, found):
    change(folder)
    with pytest.raises(InputError, match=f"^--model: found .*{found}") as caught:
        resolve_model(str(folder))
    assert "\n" not in str(caught.value)


def test_whole_shards_load(folder, true_pipes):
    shards(folder, "model-00001-of-00001.safetensors")
    got, expected = load(folder).text_encoder.state_dict(), true_pipes["sd1"].text_encoder.state_dict()
    assert all(torch.equal(got[name], value) for name, value in expected.items())


@pytest.mark.parametrize("part", ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"])
def test_a_file_that_lacks_weights_is_refused_and_one_with_more_is_said(folder, part):
    path = folder / f"{part}.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "conv_out" in name or "fc1" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=f"lacks .*{name.split('text_model.')[-1]}"):
        load(folder)
    more = {"extra.weight": torch.ones(1), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(tensors | more, path, {"format": "pt"})
    pipe = load(folder)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    out = pipe("a cat", image, num_inference_steps=2, method=methods.get("sdedit"))
    assert f"the file of {path.parent.name} holds weights that its class does not use: extra.weight" in out.warnings


def test_a_text_encoder_of_another_size_is_refused(folder):
    """Its embeddings would be made at random for the words that the file does not hold."""
    toy_text_encoder(layers=3).save_pretrained(folder / "text_encoder")
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 4}))
    with pytest.raises(InputError, match=r"text_encoder lacks encoder.layers.3.* and \d+ more"):
        load(folder)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_folder_of_half_precision_files_alone(folder, true_pipes, mixed):
    """Named as diffusers names them; one part may lie in both forms, and the plain one is taken then."""
    for path in list(folder.rglob("*.safetensors")):
        half = {name: value.half() for name, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        if not (mixed and path.parent.name == "vae"):
            path.unlink()
    pipe = load(folder)
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(pipe, part).state_dict()
        for name, value in getattr(true_pipes["sd1"], part).state_dict().items():
            stored = value if mixed and part == "vae" else value.half().float()
            assert torch.equal(weights[name], stored), (part, name)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_folder_in_half_precision_runs_where_no_dtype_is_asked(true_pipes, tmp_path, name):
    """transformers then loads half precision and diffusers single."""
    for part, network in true_pipes[name].components.items():
        if isinstance(network, torch.nn.Module):
            network.save_pretrained(tmp_path / part)
            for path in (tmp_path / part).glob("*.safetensors"):
                save_file({key: value.half() for key, value in load_file(path).items()}, path, {"format": "pt"})
            config = tmp_path / part / "config.json"
            if part.startswith("text"):
                config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float16"}))
        elif part != "feature_extractor" and network is not None:
            network.save_pretrained(tmp_path / part)
    true_pipes[name].save_config(tmp_path)
    cls = freectl.FreeControlXLPipeline if name == "sdxl" else freectl.FreeControlPipeline
    pipe = cls.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    out = pipe("a cat", image, num_inference_steps=2, method=methods.get("sdedit"), output_type="pt")
    assert torch.isfinite(out.images).all()


@pytest.mark.parametrize(
    ("extra", "metadata", "kind", "zero"),
    [
        ({}, {}, "epsilon", False),
        ({"v_pred": torch.tensor([])}, {}, "v_prediction", False),
        ({"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, {}, "v_prediction", True),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_a_single_file_says_what_it_predicts(true_pipes, saved, tmp_path, extra, metadata, kind, zero):
    path = tmp_path / "model.safetensors"
    save_file(single_file(true_pipes["sd1"]) | extra, path, metadata)
    shutil.copytree(saved, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    config = load(path).scheduler.config
    assert (config.prediction_type, bool(config.rescale_betas_zero_snr)) == (kind, zero)
    assert config.timestep_spacing == ("trailing" if zero else "leading")


@pytest.mark.parametrize(("name", "side"), [("sd1", 64), ("sdxl", 128)])
def test_a_unet_without_a_size_has_its_familys(true_pipes, name, side):
    """As diffusers' own pipelines take it."""
    unet = true_pipes[name].unet
    config = dict(unet.config) | {"sample_size": None}
    sizeless = type(unet).from_config(config)
    assert families.of(sizeless).latent_shape(sizeless) == (4, side, side)


@pytest.mark.parametrize("shape", [(), (1, 2, 16), (0, 16)])
def test_learnt_words_of_odd_shape(tmp_path, shape):
    save_file({"<odd>": torch.zeros(shape)}, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"--textual-inversion: found .*odd.safetensors' with a tensor of the shape"):
        check_adapters((), [str(tmp_path / "odd.safetensors")])
