"""The method and the model family that CONTRIBUTING.md writes down run as it says."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from method_kit import picture, wrap
from toy import TEXT_WIDTH

from freectl import methods
from freectl.denoising.cost import rows_in
from freectl.models import families
from freectl.models.engine import Engine
from freectl.pipelines.loading import load_pipeline, resolve_model

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
STEPS = 6


def snippets() -> list[str]:
    """The page's Python, in order: a method, a family."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def resample(monkeypatch):
    """The page's method, registered by the page's line."""
    text = PAGE.read_text(encoding="utf-8")
    code, _ = snippets()
    ((name, place),) = re.findall(r'`"([\w-]+)": "([\w.:]+)"`', text)
    module = ModuleType(place.partition(":")[0])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(methods.REGISTRY, name, place)
    return methods.get(name)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_method_of_the_page_runs_at_the_cost_of_its_formula(resample, toy_pipe, share):
    out = wrap(toy_pipe)(
        "a cat", picture(), source_prompt="a dog", method=resample, num_inference_steps=STEPS, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0), output_type="latent", share=share,
    )  # fmt: skip
    assert torch.isfinite(out.images).all()
    assert out.cost["row_forwards"] == rows_in(resample.row_forwards(STEPS, out.settings))


def test_a_smaller_share_stays_nearer_to_the_input(resample, toy_pipe):
    pipe = wrap(toy_pipe)
    clean = Engine(pipe).encode_images([picture()])

    def distance(share: float) -> float:
        options = {"num_inference_steps": 10, "guidance_scale": 3.0, "output_type": "latent"}
        made = pipe("a cat", picture(), source_prompt="a dog", method=resample, share=share, **options)
        return float((made.images - clean).norm())

    assert distance(0.1) < distance(0.5) < distance(1.0)


@pytest.fixture
def shallow(monkeypatch, toy_pipe, tmp_path):
    """The page's family, and a folder of a model of it."""
    _, code = snippets()
    module = ModuleType("shallow")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, module.SHALLOW])
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=2, attention_head_dim=4, norm_num_groups=4,
        cross_attention_dim=TEXT_WIDTH, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    StableDiffusionPipeline(**{**toy_pipe.components, "unet": unet}, requires_safety_checker=False).save_pretrained(
        tmp_path
    )
    return module.SHALLOW, tmp_path


@pytest.mark.parametrize("method", ["freecontrol", "ctrlx", "pnp", "sdedit"])
def test_a_model_of_the_pages_family_runs_methods(shallow, method):
    family, folder = shallow
    pipe = load_pipeline(resolve_model(str(folder)), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert Engine(pipe).family is family
    settings = {"seeds": 2} if method == "freecontrol" else {}
    out = pipe(
        "a cat", picture(), source_prompt="a dog", method=methods.get(method), num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0), output_type="latent", **settings,
    )  # fmt: skip
    assert torch.isfinite(out.images).all()
    assert out.cost["row_forwards"] > 0


def test_the_places_that_the_page_names_exist():
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## Where an addition goes") : text.index("## A method of your own")]
    places = [place for place in re.findall(r"`([\w./]+/[\w./]*)`", table) if "NAME" not in place]
    assert len(places) >= 12
    for place in places:
        assert (PAGE.parent / place).exists(), place
