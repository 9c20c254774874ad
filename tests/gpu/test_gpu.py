"""On a CUDA device: what steps and edits cost at published sizes, and that what holds on a CPU holds there.

    pytest tests/gpu -m gpu -s -n 0

Takes a few minutes and up to some 40 GiB, on smaller devices less: FLUX.1 has as many of its blocks as fit. Prints one
table. Nothing is downloaded: weights are random.
"""

import copy
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import HEAD, measured
from method_kit import picture, wrap
from PIL import Image
from random_models import MODELS, freed, made

from freectl.errors import FreectlError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(480),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda"
STEPS = 20
FEW: dict[str, Any] = {"seeds": 2, "seed_steps": STEPS, "concept": "cat"}
"""Bases of two seed pictures: they are made once a concept, and are no part of an edit's cost."""


def large(side: int) -> Image.Image:
    return picture().resize((side, side), Image.Resampling.BICUBIC)


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
RUNS = [(name, said) for name in MODELS for said in DTYPES if (name, said) != ("FLUX.1 dev", "fp16")]
"""FLUX passes the end of fp16 and is not run in it."""


@pytest.mark.parametrize(("name", "said"), RUNS)
def test_what_steps_and_edits_cost(name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As it is, with blocks run again for the gradient, with offload, and compiled, which edits run uncompiled."""
    pipe, side = made(name, tmp_path, DEVICE, DTYPES[said]), MODELS[name][1]
    network = "unet" if hasattr(pipe, "unet") else "transformer"
    blocks = getattr(pipe, network).config.get("num_layers")
    shown = name if blocks is None else f"{name}, {blocks} blocks"
    rows = {}
    measured(pipe, large(side), 4, **FEW)  # kernels are chosen and memory is claimed in the first steps
    rows[f"{said}"] = measured(pipe, large(side), STEPS, **FEW)
    rows[f"{said}, checkpointing"] = measured(pipe, large(side), STEPS, checkpointing="on", **FEW)
    pipe.vae.enable_tiling()
    rows[f"{said}, checkpointing, VAE in tiles"] = measured(pipe, large(side), STEPS, checkpointing="on", **FEW)
    pipe.register_modules(**{network: torch.compile(getattr(pipe, network))})
    rows[f"{said}, compiled"] = measured(pipe, large(side), STEPS, **FEW)
    pipe.register_modules(**{network: getattr(pipe, network)._orig_mod})
    pipe.enable_model_cpu_offload(device=DEVICE)
    rows[f"{said}, model offload"] = measured(pipe, large(side), STEPS, checkpointing="on", **FEW)
    with capsys.disabled():
        print("\n".join(["", torch.cuda.get_device_name(), HEAD, *(one.line(shown, how) for how, one in rows.items())]))  # noqa: T201
    plain = rows[said]
    assert len({one.rows for one in rows.values()}) == 1
    assert rows[f"{said}, checkpointing"].peak_gib <= plain.peak_gib
    assert rows[f"{said}, model offload"].peak_gib < plain.peak_gib
    assert plain.guided < 3 * plain.plain


def test_memory_returns_after_an_edit_and_after_one_that_failed(tmp_path: Path):
    pipe = made("Stable Diffusion 1.5", tmp_path, DEVICE, torch.bfloat16)
    options: dict[str, Any] = {"num_inference_steps": 4, "cache": None, **FEW}
    pipe("a cat", large(512), **options)
    before = freed(DEVICE)
    pipe("a cat", large(512), **options)
    assert freed(DEVICE) <= before + 2**20

    def fail(*_: Any) -> dict[str, Any]:
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        pipe("a cat", large(512), callback_on_step_end=fail, **options)
    assert freed(DEVICE) <= before + 2**20


def test_overflow_of_fp16_is_an_error_with_its_cause(tmp_path: Path):
    pipe = made("Stable Diffusion 1.5", tmp_path, DEVICE, torch.float16)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1e5)
    with pytest.raises(FreectlError, match="fp16"):
        pipe("a cat", large(512), num_inference_steps=2, cache=None, **FEW)
    del pipe
    gc.collect()


def test_cpu_and_gpu_give_the_same_picture(toy_pipe, toy_xl_pipe):
    """In fp32, from the same CPU generators; kernels round differently."""
    for toy in (toy_pipe, toy_xl_pipe):
        pictures = []
        for device in ("cpu", DEVICE):
            pipe = wrap(copy.deepcopy(toy)).to(device)
            options = {"num_inference_steps": 4, "cache": None, "output_type": "np", "components": 3, **FEW}
            pictures.append(pipe("a cat", picture(), generator=torch.Generator().manual_seed(1), **options).images)
        assert np.abs(pictures[0] - pictures[1]).mean() < 1 / 255
