"""What every registered method has: a documented page, settings that are read, and a cost formula that adds up."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from method_kit import ON_UNETS, picture, wrap

from freectl import methods
from freectl.denoising.cost import rows_in, truncated_share
from freectl.files.cache import Cache
from freectl.methods.setting import described, setting
from freectl.tasks.compare import FirstEdits

PACKAGE = Path(methods.__file__).parent


def sources_of(name: str) -> str:
    """The code of a method: its file, or its folder where it has one."""
    module = Path(inspect.getfile(type(methods.get(name))))
    files = [module] if module.parent == PACKAGE else sorted(module.parent.glob("*.py"))
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_a_method_is_documented(name):
    method = methods.get(name)
    assert method.name == name
    assert "=" in method.equations, "a method says what it computes"
    assert re.search(r"\b(19|20)\d\d\b", method.paper), "a paper has a year"
    assert all(len(line) <= 120 for line in method.equations.splitlines())
    method.settings(**{})
    for preset in method.presets.values():
        method.settings(**preset)


@pytest.mark.parametrize("name", methods.REGISTRY)
def test_every_setting_says_what_it_means_and_is_read(name):
    method, code = methods.get(name), sources_of(name)
    for one in described(method.settings()):
        assert one["description"], one["name"]
        assert one["range"], one["name"]
        assert one["unit"], f"{one['name']}: what is counted"
        assert one["source"], f"{one['name']}: where it comes from"
        read = re.search(rf"(settings|config)\.{one['name']}\b", code)
        assert read, f"{one['name']} is declared and never read"


def test_formulas_are_read_as_they_are_written():
    assert rows_in("inversion 50 + synthesis 192 (146 without a source prompt)") == 242
    assert rows_in("inversion 50 + reference 30 x executed share + synthesis 160 (+ 28 row backwards)", 0.5) == 225
    for wrong in ("about fifty", "synthesis", "50"):
        with pytest.raises(ValueError, match="cost formula"):
            rows_in(wrong)


def test_ranges_are_told_from_types_and_limits():
    from typing import Literal

    from pydantic import BaseModel

    class Some(BaseModel):
        share: float = setting(0.5, "a", ge=0, le=1, unit="share of steps", source="ours")
        count: int | None = setting(None, "b", gt=0, unit="steps", source="ours")
        kind: Literal["x", "y"] = setting("x", "c", unit="choice", source="ours")
        on: bool = setting(True, "d", unit="choice", source="ours")
        words: str = setting("", "e", unit="text", source="ours")

    assert [one["range"] for one in described(Some())] == [
        "number from 0 to 1", "whole number above 0 | none", "x | y", "true | false", "text"]  # fmt: skip


# Every method on every family, at the cost of its formula

STEPS = 4
FEW = {"freecontrol": {"seeds": 2, "seed_steps": 4, "components": 2, "window_stop": 0.5}}


@pytest.fixture(scope="module", params=["toy_pipe", "toy_pipe_v", "toy_xl_pipe"])
def pipe(request):
    return wrap(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FirstEdits:
    """Bases are kept, as the formulas assume; whatever depends on the picture is made in every run."""
    return FirstEdits(Cache(tmp_path_factory.mktemp("cache")))


def run(pipe, name, cache, **options):
    options = {"num_inference_steps": STEPS, "source_prompt": "a dog", "guidance_scale": 3.0} | options
    generator = torch.Generator().manual_seed(0)
    few = FEW.get(name, {})
    method = methods.get(name)
    return pipe(
        "a cat", picture(), method=method, cache=cache, generator=generator, output_type="latent", **few, **options
    )


@pytest.mark.parametrize("name", ON_UNETS)
def test_every_family_runs_every_method_at_the_cost_of_its_formula(pipe, cache, name):
    if name == "freecontrol":
        run(pipe, name, cache)  # makes the bases
    out = run(pipe, name, cache)
    assert out.images.shape == (1, 4, 8, 8)
    assert torch.isfinite(out.images).all()
    formula = methods.get(name).row_forwards(STEPS, out.settings)
    share = 1.0
    if "executed share" in formula:
        from freectl.models.engine import Engine

        engine = Engine(pipe)
        share = truncated_share(pipe.unet, engine.family.structure_sites(pipe.unet, out.settings.layers), (8, 8), 77)
        assert share < 1
    assert out.cost["row_forwards"] == pytest.approx(rows_in(formula, share), abs=1e-4), formula
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())


def test_resolved_settings_of_freecontrol_can_be_given_again():
    """A record holds resolved settings, and `--config` gives them back."""
    from freectl.models.families import FAMILIES

    method = methods.get("freecontrol")
    for family in FAMILIES:
        for start in ("noise", "inverted"):
            resolved = method.resolved(method.settings(start=start), family)
            method.check(resolved, [])
            assert method.resolved(method.settings(**resolved.model_dump()), family) == resolved
