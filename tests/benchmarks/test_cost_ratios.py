"""Our guided step and whole edit against the published schedule, in time, rows and activation bytes.

Run by hand, about five minutes on one free core:

    pip install -e ".[dev]" && pytest tests/benchmarks -m benchmark -s

Both sides run in one process on one UNet of Stable Diffusion's layout with random weights; times are CPU seconds of one
thread and rounds alternate, so that other work on the machine hits both sides alike.
"""

import sys
import time
from collections.abc import Callable
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
from toy import TEXT_WIDTH, toy_scheduler, toy_text_encoder, toy_tokenizer, toy_vae

from freectl.cache import Cache
from freectl.families import SD
from freectl.methods.freecontrol_targets import KeyRecorder
from freectl.pipeline import FreeControlPipeline
from freectl.sampler import Controller, Denoiser, Lane, sample

pytestmark = [pytest.mark.benchmark(timer=time.process_time, disable_gc=True), pytest.mark.timeout(0)]

WIDTHS = (64, 128, 256, 256)
LATENT = 32
ROUNDS = 12
SHARE = 8
"""The whole published edit is timed on every eighth of its 1199 calls, and that time taken eightfold."""
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
    """Both sides on one UNet."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=LATENT, block_out_channels=WIDTHS, attention_head_dim=8, cross_attention_dim=TEXT_WIDTH
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
        self.image = Image.fromarray(small).resize((4 * LATENT, 4 * LATENT), Image.Resampling.BICUBIC)
        self.cache = Cache(folder / "cache")
        sites = SD.sites(unet)
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
            self.pipe(image=self.image, num_inference_steps=2, cache=self.cache, **CALL, **settings)
        return found[0]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(tmp_path_factory.mktemp("bench"))
    made.edit(2)  # bases; and both sides' kernels are warm
    return made


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def write(title: str, **figures: float) -> None:
        with capsys.disabled():
            text = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items())
            sys.stdout.write(f"\n{title}: {text}\n")

    return write


@pytest.mark.parametrize("sibling", [True, False], ids=["with-sibling", "without-sibling"])
def test_guided_step(bench: Bench, benchmark: Any, report: Callable, monkeypatch: pytest.MonkeyPatch, sibling: bool):
    """One guided step: four rows and one backward (two rows without a sibling) against five and five."""
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


def test_whole_edit(bench: Bench, benchmark: Any, report: Callable):
    """First run and repeat at 200 steps, first run at the default 50, against 999 and 200 steps."""
    times: dict[str, float] = {}
    costs: dict[str, dict] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        times[name] = times.get(name, 0.0) + time.process_time() - begin
        return result

    published = bench.published.run(torch.randn(1, 4, LATENT, LATENT), SHARE)
    calls = -(-INVERSION_STEPS // SHARE) + STEPS // SHARE

    def part(count: int) -> int:
        return timed("published", lambda: sum(1 for _ in zip(range(count), published, strict=False)))

    bench.forget()
    done = part(calls // 4)
    costs["first, 200 steps"] = timed("first, 200 steps", lambda: bench.edit(STEPS))
    done += part(calls // 4)
    costs["repeat, 200 steps"] = timed("repeat, 200 steps", lambda: bench.edit(STEPS))
    done += part(calls // 4)
    bench.forget()
    costs["first, 50 steps"] = benchmark.pedantic(lambda: timed("first, 50 steps", lambda: bench.edit(50)), rounds=1)
    costs["repeat, 50 steps"] = timed("repeat, 50 steps", lambda: bench.edit(50))
    done += part(calls)
    times["published"] *= SHARE
    assert done == calls
    for name, cost in costs.items():
        assert cost["cached"]["bases"]
        assert cost["cached"]["inversion"] == name.startswith("repeat")
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
        report(f"whole edit, {name}", **figures)
        assert figures["time_ratio"] > 1


def full_size(dtype: torch.dtype) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's UNet without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, attention_head_dim=8, cross_attention_dim=768).eval().to(dtype)


def test_activation_bytes_of_stable_diffusion(report: Callable, monkeypatch: pytest.MonkeyPatch):
    """What autograd keeps in a guided call at 512 px and 16 bits, counted on the meta device with fused attention."""
    from freectl.methods.freecontrol_guide import frozen
    from freectl.taps import tap

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
    unet, half = full_size(torch.float16), torch.float16
    sites = SD.sites(unet)
    with torch.device("meta"):
        bases = {site: (torch.zeros(1280), torch.zeros(COMPONENTS, 1280)) for site in sites}
        texts = [torch.zeros(1, 77, 768, dtype=half)] * 3
        latent = torch.zeros(1, 4, 64, 64, dtype=half)
        plain = PublishedSchedule(unet, toy_scheduler().alphas_cumprod, sites, bases, *texts)
        with saved_tensors(unet) as published:
            rows = plain.rows(latent, latent, latent).requires_grad_(True)
            kept = plain.guided_energy(rows, 501)
        with saved_tensors(unet) as ours, frozen(unet):
            row = latent.clone().requires_grad_(True)
            with tap(unet, sites, cut_grad=True) as seen:
                unet(row, 501, encoder_hidden_states=texts[0], return_dict=False)
            keys = {site: key.expand(ROWS, -1, -1) for site, key in seen.pop_all().items()}
            energy = plain.energy(keys)
    assert kept[0].shape[0] == ROWS > EDIT
    assert energy.requires_grad
    figures = {
        "GiB": saved_bytes(ours) / GIB,
        "published_GiB": saved_bytes(published) / GIB,
        "activation_ratio": saved_bytes(published) / saved_bytes(ours),
    }
    report("Stable Diffusion 1.5, 512 px, 16 bits", **figures)
    assert figures["GiB"] < 0.35
