"""Measures of the embedded model: what the judge sees in samples, what VAE and inversion lose, its helpers."""

import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.mini.captions import Wanted, fixed_captions
from freectl.mini.drawing_distance import mean_distances
from freectl.mini.judge import HEADS, Verdict, judge_pictures, load_judge
from freectl.mini.sampling import Sampler
from freectl.mini.scene import random_scene, render
from freectl.mini.score_helpers import clip_scores, judge_scores, share
from freectl.mini.training.data import batch_rng, scene_batch

SCORE_SEED = 1234
CELL = 128
"""Pixels to a side of a sheet's pictures, as far as whole multiples of theirs go."""
DISTANCES = 60
"""Samples whose distance to the nearest true drawing is searched for: about a second each at 128 px."""


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1 to 1, over all of them together."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean()))


def score_model(folder: Path, captions: int | None = None, steps: int = 50, helper_scenes: int = 2000) -> dict:
    """All measures of a model folder.

    Args:
        folder: a generator that `Sampler` opens, with `judge/` in it or beside it for the agreement measures. One in
            Stable Diffusion layout is measured throughout, with `clip/` for retrieval.
        captions: the first so many of the fixed captions, and a fifth as many of the held-out pairs; default all.
        steps: denoising steps.
        helper_scenes: fresh scenes on which the judge is measured; the CLIP has half as many.

    Raises:
        InputError: the folder holds no model or no judge.
    """
    judge = load_judge(judge_folder(folder))
    sampler = Sampler(folder)
    scores = speed(sampler, steps)
    if sampler.kind == "StableDiffusionPipeline":
        pipe = load(folder)
        scores |= reconstruction(pipe) | inversion(pipe, steps) | judge_scores(judge, helper_scenes)
        if (folder / "clip").exists():
            scores |= clip_scores(folder / "clip", helper_scenes // 2)
    wanted = fixed_captions()
    seen, held = ([one for one in wanted if one.held_out == held] for held in (False, True))
    if captions is not None:
        seen, held = seen[:captions], held[: max(1, captions // 5)]
    for label, some in (("", seen), ("held-out ", held)):
        pictures = sampler.draw([one.caption for one in some], steps)
        scores |= agreement(judge, pictures, some, label)
        if not label:
            scores |= mean_distances(pictures[:DISTANCES], some[:DISTANCES])
    return scores


def judge_folder(folder: Path) -> Path:
    """The judge of a model folder, or of the one that a further generator lies in.

    Raises:
        InputError: there is none, or its weights are damaged.
    """
    for place in (folder / "judge", folder.parent / "judge"):
        if (place / "config.json").exists():
            tensor_files.check_folder(place, "--model")
            return place
    allowed = "a folder that `freectl mini train` wrote, `--part judge` too"
    raise InputError("--model", f"'{folder}', which has no judge/config.json", allowed)


def load(folder: Path) -> Any:
    """The model of a folder, fp32, on the CPU, quiet.

    Raises:
        FreectlError: the folder holds no model.
    """
    from freectl.pipelines.loading import load_pipeline, resolve_model

    pipe = load_pipeline(resolve_model(str(folder)), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reconstruction(pipe: Any, count: int = 500) -> dict[str, Any]:
    """VAE round trip of fresh scenes."""
    size = pipe.vae.config.sample_size
    _, pictures = scene_batch(batch_rng(SCORE_SEED, 0), count, held_out=None, size=size)
    with torch.no_grad():
        decoded = [pipe.vae.decode(pipe.vae.encode(part).latent_dist.mode()).sample for part in pictures.split(50)]
    return {"vae_psnr_db": round(psnr(torch.cat(decoded), pictures), 2)}


def inversion(pipe: Any, steps: int, count: int = 20) -> dict[str, Any]:
    """DDIM inversion without CFG and sampling back, full captions."""
    from freectl.denoising.inversion import invert
    from freectl.denoising.sampler import Lane, sample
    from freectl.models.engine import Engine

    engine = Engine(pipe)
    rng = random.Random(f"inversion/{SCORE_SEED}")
    scenes = [random_scene(rng, held_out=False) for _ in range(count)]
    pictures = [render(scene, pipe.vae.config.sample_size) for scene in scenes]
    clean = engine.encode_images(pictures)
    prompt = engine.encode_prompt([scene.caption for scene in scenes])
    path = engine.path(steps)
    start = invert(engine.denoiser, path, clean, prompt, path.times).start
    lanes = sample(engine.denoiser, path, {"edit": Lane(start, prompt)}, path.times)
    decoded = engine.decode(lanes["edit"].latents)
    return {"inversion_psnr_db": round(psnr(decoded, pipe.image_processor.preprocess(pictures)), 2)}


def speed(sampler: Sampler, steps: int, pictures: int = 3) -> dict[str, Any]:
    """Seconds of one picture made alone, the fastest of a few, with torch's own thread count."""
    taken = []
    for seed in range(pictures):
        start = time.perf_counter()
        sampler.draw(["a fluent fox on a blue background"], steps, seed)
        taken.append(time.perf_counter() - start)
    return {"seconds_a_picture": round(min(taken), 2), "threads": torch.get_num_threads()}


def agreement(judge: Any, pictures: Sequence[Image.Image], wanted: Sequence[Wanted], label: str) -> dict[str, Any]:
    """Share of samples in which the judge sees the caption's object, style and background: all, and by style."""
    verdicts = judge_pictures(judge, pictures)
    scores: dict[str, Any] = {f"{label}captions": len(wanted)}
    for head in HEADS:
        scores[f"{label}{head}_agreement"] = share(_right(head, verdicts, wanted))
    for style in HEADS["style"]:
        pairs = [(v, w) for v, w in zip(verdicts, wanted, strict=True) if w.style == style]
        if pairs:
            for head in HEADS:
                right = share(_right(head, *zip(*pairs, strict=True)))
                scores[f"{label}{head}_agreement_{style}"] = right
    return scores


def _right(head: str, verdicts: Iterable[Verdict], wanted: Iterable[Wanted]) -> list[bool]:
    return [v.labels[head] == getattr(w, head) for v, w in zip(verdicts, wanted, strict=True)]


def sheet(sampler: Sampler, count: int = 64, columns: int = 8, steps: int = 50) -> Image.Image:
    """The first fixed captions as a labelled sheet of samples."""
    from freectl.files.pictures import compare_sheet

    captions = [one.caption for one in fixed_captions()[:count]]
    short = [text.replace(" background", "").removeprefix("an ").removeprefix("a ") for text in captions]
    made = sampler.draw(captions, steps)
    return compare_sheet(list(zip(short, made, strict=True)), columns=columns, scale=max(1, CELL // made[0].width))
