"""Our guided step and whole edit against the published schedule, in time, rows and activation bytes.

Run by hand, about three minutes on one free core:

    pip install -e ".[dev]" && pytest tests/benchmarks -m benchmark -s -n 0

Both sides run in one process on one UNet of Stable Diffusion's layout with random weights; times are CPU seconds of one
thread and rounds alternate, so that other work on the machine hits both sides alike.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from published import (
    COMPONENTS,
    EDIT,
    GUIDED,
    INVERSION_STEPS,
    ROWS,
    STEPS,
    PublishedSchedule,
    fused_attention,
    saved_bytes,
    saved_tensors,
)
from torch import Tensor
from toy import TEXT_WIDTH, toy_scheduler, toy_text_encoder, toy_tokenizer, toy_vae

from freectl.denoising.cost import truncated_share
from freectl.denoising.grad import frozen
from freectl.denoising.sampler import Controller, Denoiser, Lane, sample
from freectl.denoising.taps import tap
from freectl.files.cache import Cache
from freectl.methods.freecontrol.targets import KeyRecorder
from freectl.models.families import SD, SDXL, Family
from freectl.pipelines.sd import FreeControlPipeline
from freectl.semantics import energies
from freectl.semantics.bases import Basis

pytestmark = [pytest.mark.benchmark(timer=time.process_time, disable_gc=True), pytest.mark.timeout(0)]

WIDTHS = (64, 128, 256, 256)
STEP_LATENT, EDIT_LATENT = 48, 24
"""Sides of the latents. A guided step needs the larger one: below it, the time of single rows is not all arithmetic."""
ROUNDS = 5
SHARE = 16
"""The whole published edit is timed on every sixteenth of its 1199 calls, and that time taken sixteenfold."""
GIB = 2**30
PUBLISHED_ROWS = INVERSION_STEPS + ROWS * STEPS
PUBLISHED_BACKWARDS = ROWS * GUIDED
CALL = {"prompt": "a cat", "concept": "cat", "source_prompt": "a fox", "seeds": 2, "output_type": "latent"}
"""Two seed pictures give enough tokens for 64 components; what the bases hold does not matter to the time."""


@dataclass
class Captured:
    """What a run hands to the denoising loop."""

    denoiser: Denoiser
    scheduler: Any
    lanes: dict[str, Lane]
    controller: Controller


class Bench:
    """Both sides on one UNet, for latents of one side."""

    def __init__(self, folder: Path, latent: int) -> None:
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=latent, block_out_channels=WIDTHS, attention_head_dim=8, cross_attention_dim=TEXT_WIDTH
        ).eval()
        plain = StableDiffusionPipeline(
            vae=toy_vae(),
            text_encoder=toy_text_encoder(),
            tokenizer=toy_tokenizer(folder / "tokenizer"),
            unet=unet,
            scheduler=toy_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipe = FreeControlPipeline.from_pipe(plain)
        self.pipe.set_progress_bar_config(disable=True)
        small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        self.image = Image.fromarray(small).resize((4 * latent, 4 * latent), Image.Resampling.BICUBIC)
        self.cache = Cache(folder / "cache")
        sites = SD.structure_sites(unet)
        width = unet.get_submodule(sites[0]).out_features
        directions = {site: torch.linalg.qr(torch.randn(width, COMPONENTS))[0].T.contiguous() for site in sites}
        bases = {site: (torch.zeros(width), found) for site, found in directions.items()}
        texts = (torch.randn(1, 77, TEXT_WIDTH) for _ in range(3))
        self.published = PublishedSchedule(unet, toy_scheduler().alphas_cumprod, sites, bases, *texts)

    def edit(self, steps: int) -> dict[str, Any]:
        """Our edit with bases from the cache; its cost record."""
        return self.pipe(image=self.image, num_inference_steps=steps, cache=self.cache, **CALL).cost

    def forget(self) -> None:
        """Make the next edit a first run: only bases stay."""
        for kind in {entry.kind for entry in self.cache.entries()} - {"bases"}:
            self.cache.clear(kind)

    def captured(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Captured:
        """The controller of a real run, and the lanes it starts with."""
        found: list[Captured] = []

        def take(denoiser: Denoiser, scheduler: Any, lanes: dict, timesteps: Any, controller: Any, **_: Any) -> dict:
            found.append(Captured(denoiser, scheduler, lanes, controller))
            return lanes

        with monkeypatch.context() as patch:
            patch.setattr("freectl.methods.base.sample", take)
            self.pipe(image=self.image, num_inference_steps=2, seed_steps=4, cache=self.cache, **CALL, **settings)
        return found[0]


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, request.param)


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def write(title: str, **figures: float) -> None:
        with capsys.disabled():
            text = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
            sys.stdout.write(f"\n{title}: {text}\n")

    return write


@pytest.mark.parametrize("sibling", [True, False], ids=["with-sibling", "without-sibling"])
@pytest.mark.parametrize("bench", [STEP_LATENT], indirect=True)
def test_guided_step(bench: Bench, benchmark: Any, report: Callable, monkeypatch: pytest.MonkeyPatch, sibling: bool):
    """One guided step against five rows and five backwards: two rows and one backward, and two rows of the sibling.

    The sibling's rows are there in a first run, unless the appearance weight is 0, and never in a repeat.
    """
    run = bench.captured(monkeypatch, **({} if sibling else {"appearance_weight": 0.0}))
    timestep = int(run.scheduler.timesteps[0])
    start = run.lanes["edit"].latents
    theirs: list[float] = []

    def published_round() -> None:
        begin = time.process_time()
        bench.published.step(1, start, start, start)
        theirs.append(time.process_time() - begin)

    def our_step() -> None:
        lane = run.lanes["edit"]
        lanes = {"edit": Lane(start.clone(), lane.prompt, lane.guidance_scale)}
        sample(run.denoiser, run.scheduler, lanes, [timestep], run.controller)
        if sibling:
            lanes = {"sibling": Lane(start.clone(), lane.prompt, lane.guidance_scale)}
            sample(run.denoiser, run.scheduler, lanes, [timestep], KeyRecorder(run.controller.sites, [timestep]))

    assert any(target.appearance for target in run.controller.targets) is sibling
    published_round()
    our_step()
    theirs.clear()
    benchmark.pedantic(our_step, setup=published_round, rounds=ROUNDS)
    with saved_tensors(bench.pipe.unet) as ours:
        our_step()
    with saved_tensors(bench.pipe.unet) as published:
        bench.published.step(1, start, start, start)
    rows = 4 if sibling else 2
    mine, published_time = benchmark.stats.stats.median, float(np.median(theirs))
    figures = {
        "seconds": mine,
        "published_seconds": published_time,
        "time_ratio": published_time / mine,
        "row_ratio": ROWS / rows,
        "activation_ratio": saved_bytes(published) / saved_bytes(ours),
    }
    benchmark.extra_info.update(figures)
    report(f"guided step, {'with' if sibling else 'without'} sibling", **figures)
    assert figures["time_ratio"] > 1
    assert figures["activation_ratio"] > 1


@pytest.mark.parametrize("steps", [50, STEPS])
@pytest.mark.parametrize("bench", [EDIT_LATENT], indirect=True)
def test_whole_edit(bench: Bench, benchmark: Any, report: Callable, steps: int):
    """First run and repeat, at the default and the published number of steps, against 999 and 200 steps."""
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        times[name] = times.get(name, 0.0) + time.process_time() - begin
        return result

    published = bench.published.run(torch.randn(1, 4, EDIT_LATENT, EDIT_LATENT), SHARE)
    calls = -(-INVERSION_STEPS // SHARE) + -(-STEPS // SHARE)

    def part(count: int) -> int:
        return timed("published", lambda: sum(1 for _ in zip(range(count), published, strict=False)))

    bench.edit(5)  # makes the bases of the usual window
    bench.forget()
    done = part(calls // 3)
    costs = {"first run": benchmark.pedantic(lambda: timed("first run", lambda: bench.edit(steps)), rounds=1)}
    done += part(calls // 3)
    costs["repeat"] = timed("repeat", lambda: bench.edit(steps))
    done += part(calls)
    assert done == calls
    times["published"] *= SHARE
    for name, cost in costs.items():
        assert cost["cached"]["bases"]
        assert cost["cached"]["inversion"] == (name == "repeat")
        figures = {
            "seconds": times[name],
            "published_seconds": times["published"],
            "time_ratio": times["published"] / times[name],
            "rows": cost["row_forwards"],
            "row_ratio": PUBLISHED_ROWS / cost["row_forwards"],
            "backwards": cost["row_backwards"],
            "backward_ratio": PUBLISHED_BACKWARDS / cost["row_backwards"],
        }
        benchmark.extra_info.update({f"{name}: {key}": value for key, value in figures.items()})
        report(f"whole edit, {steps} steps, {name}", **figures)
        assert figures["time_ratio"] > 1


SD_FULL = {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}
SDXL_FULL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def our_energies(keys: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Structure and appearance energy of one row's keys at one site, as the guide computes them."""
    s = energies.normalise_coordinates(Basis(mean, components, mean[:COMPONENTS]).project(keys), "minmax")
    vectors = energies.appearance_vectors(keys, energies.appearance_weights(s, 2, "gated"))
    structure = energies.structure_energy(s, torch.zeros_like(s))
    return structure + energies.appearance_energy(vectors, torch.zeros_like(vectors))


@pytest.mark.parametrize(
    ("family", "config", "most"), [(SD, SD_FULL, 0.35), (SDXL, SDXL_FULL, 4.0)], ids=["sd-512px", "sdxl-1024px"]
)
def test_activation_bytes_at_full_size(
    report: Callable, monkeypatch: pytest.MonkeyPatch, family: Family, config: dict, most: float
):
    """What autograd keeps in a guided call in 16 bits, counted on the meta device with fused attention."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())  # it has no meta device
    half, side = torch.float16, config["sample_size"]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval().to(half)
        sites = family.structure_sites(unet)
        bases = {site: (torch.zeros(1280), torch.zeros(COMPONENTS, 1280)) for site in sites}
        texts = [torch.zeros(1, 77, config["cross_attention_dim"], dtype=half)] * 3
        latent = torch.zeros(1, 4, side, side, dtype=half)
        extra = {"text_embeds": torch.zeros(1, 1280, dtype=half), "time_ids": torch.zeros(1, 6, dtype=half)}
        plain = PublishedSchedule(unet, toy_scheduler().alphas_cumprod, sites, bases, *texts)
        plain.extra = {"added_cond_kwargs": {name: torch.cat([value] * ROWS) for name, value in extra.items()}}
        with saved_tensors(unet) as published:
            rows = plain.rows(latent, latent, latent).requires_grad_(True)
            kept = plain.guided_energy(rows, 501)
        with saved_tensors(unet) as ours, frozen(unet):
            row = latent.clone().requires_grad_(True)
            with tap(unet, sites, cut_grad=True) as seen:
                unet(row, 501, encoder_hidden_states=texts[0], added_cond_kwargs=extra, return_dict=False)
            energy = sum(our_energies(key, *bases[site]) for site, key in seen.pop_all().items())
    assert kept[0].shape[0] == ROWS > EDIT
    assert energy.requires_grad
    figures = {
        "GiB": saved_bytes(ours) / GIB,
        "published_GiB": saved_bytes(published) / GIB,
        "activation_ratio": saved_bytes(published) / saved_bytes(ours),
    }
    report(f"full size, {family.name}, 16 bits", **figures)
    assert figures["GiB"] < most


@pytest.mark.parametrize(("family", "config"), [(SD, SD_FULL), (SDXL, SDXL_FULL)], ids=["sd-512px", "sdxl-1024px"])
def test_rows_at_full_size(report: Callable, family: Family, config: dict):
    """Row forwards of first runs and repeats by the formula, with the executed share of the full-size UNet."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    side = config["sample_size"]
    share = truncated_share(unet, family.structure_sites(unet), (side, side), 77)
    figures = {"executed_share": share}
    for steps in (50, 200):
        guided = round(0.6 * steps)
        figures |= {
            f"first_at_{steps}_steps": steps + share + 2 * guided + 2 * steps,
            f"repeat_at_{steps}_steps": 2 * steps,
        }
    report(f"row forwards, {family.name}", **figures, published=PUBLISHED_ROWS)
    assert figures["first_at_200_steps"] < PUBLISHED_ROWS / 2
