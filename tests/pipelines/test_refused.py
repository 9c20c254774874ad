"""Models that freectl does not open: one line that says why and what to use, before anything is read."""

import json

import pytest
import torch
from safetensors.torch import save_file

from freectl.cli import main
from freectl.errors import InputError
from freectl.pipelines.loading import resolve_model


@pytest.mark.parametrize(
    ("kind", "found", "allowed"),
    [
        ("SanaSprintPipeline", "SANA-Sprint, whose steps are a consistency model's", "a model of Stable Diffusion"),
        ("Ideogram4Pipeline", "Ideogram 4, which is guided by a second network", "a model of Stable Diffusion"),
        ("QwenImageEditPlusPipeline", "an editor", "the text-to-image model"),
        ("StableDiffusionXLInpaintPipeline", "an inpainting model", "the text-to-image model .*--keep"),
        ("StableDiffusion3ControlNetPipeline", "a model with a network for conditions", ".*freectl control"),
        ("WanPipeline", "a model of films", "a model of Stable Diffusion"),
        ("CogView4Pipeline", "a CogView4Transformer2DModel, is none that freectl opens", "a model of Stable Diff"),
    ],
)
def test_models_that_cannot_be_carried_say_why(tmp_path, monkeypatch, capsys, kind, found, allowed):
    """By the folder's index alone, in one line, with exit code 2."""
    network = kind.replace("Pipeline", "Transformer2DModel")
    index = {"_class_name": kind, "transformer": ["diffusers", network], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"--model: found folder '.*' of a {kind}.*{found}.*; allowed: {allowed}"):
        resolve_model(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["freectl", "edit", "--image", str(tmp_path), "--prompt", "a cat", "--model",
                                     str(tmp_path)])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_modular_folders_say_why(tmp_path):
    path = tmp_path / "modular_model_index.json"
    path.write_text('{"_blocks_class_name": "Flux3AutoBlocks"}')
    with pytest.raises(InputError, match="of a Flux3AutoBlocks: FLUX.3, made of modular blocks.* follows no path"):
        resolve_model(str(tmp_path))
    path.write_text('{"_blocks_class_name": "OwnBlocks"}')
    with pytest.raises(InputError, match="of modular blocks, which may be code of its own"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ["ref_time_in.in_layer.weight", "early_stream_modulations.image.lin.weight"],
            "of kind 'flux-3-image-distilled': FLUX.3",
        ),
    ],
)
def test_files_of_models_that_cannot_be_carried_say_why(tmp_path, names, found):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"--model: found file '.*a.safetensors'.*{found}"):
        resolve_model(str(tmp_path / "a.safetensors"))
