"""The pipelines as others' code meets them: custom_pipeline, saved folders, interruption, the safety checker."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

import freectl

COMMUNITY = Path(freectl.__file__).parent / "pipelines" / "community"
QUICK = {
    "num_inference_steps": 2,
    "seeds": 2,
    "seed_steps": 4,
    "components": 3,
    "concept": "cat",
    "output_type": "latent",
}


@pytest.fixture(scope="module")
def folders(toy_pipe, toy_xl_pipe, tmp_path_factory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("saved") / name for name in ("sd", "sdxl")}
    for (_, folder), pipe in zip(made.items(), (toy_pipe, toy_xl_pipe), strict=True):
        pipe.save_pretrained(folder)
    return made


@pytest.fixture(autouse=True)
def modules(monkeypatch, tmp_path) -> None:
    """Where diffusers copies code that it loads by path."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(("name", "plain"), [("sd", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)])
@pytest.mark.parametrize("as_file", [False, True])
def test_custom_pipeline_saves_and_loads_by_either_class(folders, tmp_path, name, plain, as_file):
    code = str(COMMUNITY / name / "pipeline.py" if as_file else COMMUNITY / name)
    pipe = quiet(DiffusionPipeline.from_pretrained(folders[name], custom_pipeline=code, trust_remote_code=True))
    own = freectl.FreeControlXLPipeline if name == "sdxl" else freectl.FreeControlPipeline
    assert type(pipe) is own
    pipe.save_pretrained(tmp_path / "again")
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "again")) is plain
    again = quiet(own.from_pretrained(tmp_path / "again"))
    if not as_file:
        plain_settings = {**QUICK, "structure_strength": 0.0}
        expected = pipe("a cat", picture(), **plain_settings).images
        got = again("a cat", picture(), **plain_settings).images
        assert torch.equal(got, expected)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_callback_may_stop_a_run(folders, name):
    own = freectl.FreeControlXLPipeline if name == "sdxl" else freectl.FreeControlPipeline
    pipe = quiet(own.from_pretrained(folders[name]))
    seen: list[int] = []

    def stop(pipe: Any, index: int, _timestep: int, tensors: dict) -> dict:
        seen.append(index)
        pipe._interrupt = index == 1
        return {"latents": torch.zeros_like(tensors["latents"])} if index == 1 else {}

    out = pipe("a cat", picture(), callback_on_step_end=stop, **QUICK | {"num_inference_steps": 4})
    assert seen == [0, 1]
    assert pipe.interrupt
    assert not out.images.any()


@pytest.mark.parametrize("flagged", [False, True])
def test_the_safety_checker_of_a_model_is_honoured(toy_pipe, monkeypatch, tmp_path, flagged):
    """A tiny one of diffusers' class, whose thresholds are set so that everything or nothing is flagged."""
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 16, "projection_dim": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision | sizes, projection_dim=8)).eval()
    checker.concept_embeds_weights.data.fill_(-2.0 if flagged else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    parts = {**toy_pipe.components, "safety_checker": checker, "feature_extractor": extractor}
    quiet(freectl.FreeControlPipeline(**parts)).save_pretrained(tmp_path)
    pipe = quiet(freectl.FreeControlPipeline.from_pretrained(tmp_path))
    out = pipe("a cat", picture(), **QUICK | {"output_type": "pil"})
    assert out.nsfw_content_detected == [flagged]
    assert bool(np.asarray(out.images[0]).any()) is not flagged
    assert pipe("a cat", picture(), **QUICK).nsfw_content_detected is None  # latents are not looked at
