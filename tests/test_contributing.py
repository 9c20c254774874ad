"""The method that CONTRIBUTING.md writes down runs as it says."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from method_kit import picture, wrap

from freectl import methods
from freectl.denoising.cost import rows_in
from freectl.models.engine import Engine

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
STEPS = 6


@pytest.fixture
def resample(monkeypatch):
    """The page's method, registered by the page's line."""
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
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
