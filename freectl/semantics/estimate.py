"""How long semantic bases will take to build, said before the build starts."""

import sys
from time import perf_counter
from typing import Any

import torch
from tqdm.auto import tqdm

from freectl.denoising.sampler import Lane, row_keys
from freectl.models.engine import Engine

PROBE_TIMESTEP = 500


def announce(engine: Engine, prompts: Any, seeds: int, rows: int) -> None:
    """Write to stderr what a build will take, where the pipeline shows progress bars; else run nothing.

    The time is measured: one seed picture's step is run twice, which the cost record counts (4 rows).

    Args:
        prompts: `bases_store.SeedPrompts`. seeds: seed pictures. rows: row forwards of the whole build.
    """
    if getattr(engine.pipe, "_progress_bar_config", {}).get("disable"):
        return
    name = "general" if prompts.concept == "*" else f"'{prompts.concept}'"
    seconds = rows * seconds_per_row(engine, prompts.texts[0], prompts.negative)
    work = f"{seeds} seed pictures, {rows} row forwards, up to about {duration(seconds)}"
    tqdm.write(f"semantic bases ({name}): made once for this model, {work}", file=sys.stderr)


@torch.no_grad()
def seconds_per_row(engine: Engine, text: str, negative: str) -> float:
    """Wall seconds of one row forward of a seed picture, from the second of two equal calls of two rows.

    Larger batches are faster a row on accelerators: there it is an upper bound.
    """
    size = (engine.base_size, engine.base_size)
    prompt = engine.encode_prompt([text], [negative], size=size)
    lanes = {"seed": Lane(engine.noise(size, [torch.Generator().manual_seed(0)]), prompt)}
    keys = row_keys(lanes)
    seconds = 0.0
    for _ in range(2):  # the first call also sets kernels up
        begin = perf_counter()
        outputs = engine.denoiser.rows(lanes, keys, PROBE_TIMESTEP)
        float(next(iter(outputs.values())).flatten()[0])  # waits for the device
        seconds = perf_counter() - begin
    return seconds / len(keys)


def duration(seconds: float) -> str:
    """How long, in words: two significant figures at most."""
    if seconds < 1:
        return "a second"
    if seconds < 100:
        return f"{float(f'{seconds:.1g}' if seconds < 10 else f'{seconds:.2g}'):g} s"
    if seconds < 100 * 60:
        return f"{float(f'{seconds / 60:.2g}'):g} min"
    return f"{float(f'{seconds / 3600:.2g}'):g} h"
