"""What the tests of the editing methods share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_inputs

from freectl import methods
from freectl.models.families import SD
from freectl.pipelines.sd import FreeControlPipeline
from freectl.pipelines.sdxl import FreeControlXLPipeline

ON_UNETS = [name for name in methods.REGISTRY if SD.runs(name)]


def picture(seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def wrap(toy) -> FreeControlPipeline | FreeControlXLPipeline:
    xl = getattr(toy, "tokenizer_2", None) is not None
    pipe = (FreeControlXLPipeline if xl else FreeControlPipeline).from_pipe(toy)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def check_unet_restored(pipe: FreeControlPipeline, run: Callable[[Callable], Any], step: int) -> None:
    """A callback that raises in the middle of `run` leaves the UNet with equal outputs and no hooks."""
    inputs = toy_inputs(pipe.unet)

    def fail(_pipe, index, _timestep, _tensors):
        if index == step:
            raise RuntimeError("from the callback")

    with torch.no_grad():
        before = pipe.unet(**inputs).sample
    with pytest.raises(RuntimeError, match="from the callback"):
        run(fail)
    with torch.no_grad():
        assert torch.equal(pipe.unet(**inputs).sample, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())
