"""Is the time of an edit that of the work it counts? CPU seconds of one thread over rows counted times a row's seconds.

    OMP_NUM_THREADS=1 pytest tests/benchmarks/test_counted_work.py -m benchmark -s -n 0

A row's seconds are those of plain calls with as many rows (a row alone takes a third more here than one of a pair), a
row backward what the gradient for the latents adds to a plain call of one. Whatever else an edit does, encoding,
decoding, energies and stepping, takes the ratio above 1; gradients that end behind the last tapped layer take it
below. Weights do not matter to it: the transformer is that of `mini-flow`, untrained.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from freectl.denoising.grad import frozen
from freectl.denoising.sampler import Lane
from freectl.files.cache import Cache
from freectl.files.data import MODEL_DIR, prompts_file
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.training.flow import FlowPart
from freectl.models import families
from freectl.models.engine import Engine
from freectl.pipelines.loading import load_pipeline, resolve_model

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(0)]

ROUNDS, STEPS = int(os.environ.get("FREECTL_ROUNDS", "3")), 28
MOST = 1.15


def seconds(work: Callable[[], Any], count: int = 1, before: Callable[[], Any] = lambda: None) -> float:
    """Of one call, the fastest of a few rounds, before each of which something else is done."""
    found = []
    for _ in range(ROUNDS):
        before()
        begin = time.process_time()
        for _ in range(count):
            work()
        found.append((time.process_time() - begin) / count)
    return min(found)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("flow")
    FlowPart(MODEL_DIR).export(made)
    return {"mini": MODEL_DIR, "mini-flow": made}


@pytest.mark.parametrize("name", ["mini", "mini-flow"])
def test_an_edit_takes_the_time_of_its_rows(name: str, folders: dict[str, Path], tmp_path: Path, capsys) -> None:
    """The first edit of a picture with bases at hand, and the same again."""
    pipe = load_pipeline(resolve_model(str(folders[name])), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    cache = Cache(tmp_path)
    image = Image.open(prompts_file("images/fox.png")).convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE))
    words = {"concept": "cat", "source_prompt": "a noto fox on a blue background", "seeds": 2, "cache": cache}

    def edit() -> Any:
        seed = torch.Generator().manual_seed(0)
        return pipe("a fluent cat on a blue background", image, num_inference_steps=STEPS, generator=seed, **words).cost

    def forget() -> None:
        for kind in {entry.kind for entry in cache.entries()} - {"bases"}:
            cache.clear(kind)

    edit()
    one, two, backward = row_seconds(Engine(pipe), image)
    network, calls = families.network_of(pipe), Counter[int]()
    for state, before in (("first", forget), ("repeat", lambda: None)):
        before()
        calls.clear()
        counting = network.register_forward_pre_hook(
            lambda _m, args, kwargs: calls.update([rows_of(args, kwargs)]), with_kwargs=True
        )
        cost = edit()
        counting.remove()
        assert cost["cached"]["inversion"] == (state == "repeat")
        assert set(calls) == {1, 2}
        cut = calls[1] + 2 * calls[2] - cost["row_forwards"]  # of rows that end behind the last tapped layer
        work = (calls[1] - cut) * one + calls[2] * two + cost["row_backwards"] * backward
        took = seconds(edit, before=before)
        with capsys.disabled():
            print(f"\n{name}, {state}: {took:.2f} s, counted {work:.2f} s, ratio {took / work:.3f}")  # noqa: T201
        assert took <= MOST * work


def rows_of(args: Any, kwargs: dict[str, Any]) -> int:
    """Rows of a call of the network."""
    latents: Any = args[0] if args else kwargs["hidden_states"]
    return len(latents)


def row_seconds(engine: Engine, image: Image.Image) -> tuple[float, float, float]:
    """Of a call of one row, of one of two, and of a row backward."""
    text = engine.encode_prompt(["a fluent cat on a blue background"], [""])
    lanes = {"edit": Lane(engine.encode_images([image]), text)}
    time_ = engine.path(STEPS).times[STEPS // 2]
    cond: list[Any] = [("edit", "cond")]

    @torch.no_grad()
    def forward(keys: list[Any]) -> None:
        engine.denoiser.rows(lanes, keys, time_)

    def both() -> None:
        start = lanes["edit"].latents.clone().requires_grad_(True)
        with frozen(engine.network):
            found = engine.denoiser.rows({"edit": replace(lanes["edit"], latents=start)}, cond, time_)
            found["edit", "cond"].square().sum().backward()

    one = seconds(lambda: forward(cond), 8)
    return one, seconds(lambda: forward([*cond, ("edit", "uncond")]), 8), seconds(both, 8) - one
