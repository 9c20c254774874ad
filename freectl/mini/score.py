"""Measures of the embedded model: what the judge sees in samples; what VAE and inversion lose."""

import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freectl.errors import FreectlError
from freectl.mini.judge import HEADS, judge_pictures, load_judge, mask_iou
from freectl.mini.scene import Scene, random_scene, render, render_mask
from freectl.mini.training.data import batch_rng, scene_batch

SCORE_SEED = 1234
BATCH = 20


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1 to 1, over all of them together."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean()))


def score_model(folder: Path, captions: int = 300, steps: int = 50, judged_scenes: int = 500) -> dict[str, Any]:
    """All measures of a model folder.

    Args:
        folder: Stable Diffusion layout, with `judge/` for the agreement measures.
        captions: samples judged; scenes drawn from a seed that training does not use.
        steps: DDIM steps.
        judged_scenes: clean scenes on which the judge itself is measured.

    Raises:
        FreectlError: the folder holds no model.
    """
    from freectl.loading import load_pipeline, resolve_model

    pipe = load_pipeline(resolve_model(str(folder)), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    scores = reconstruction(pipe) | inversion(pipe, steps)
    if not (folder / "judge").exists():
        raise FreectlError(f"{folder}: no judge; train one with `freectl mini train --part judge`")
    judge = load_judge(folder / "judge")
    scores |= judge_scores(judge, judged_scenes)
    rng = random.Random(f"captions/{SCORE_SEED}")
    scenes = [random_scene(rng, held_out=False) for _ in range(captions)]
    held = [random_scene(rng, held_out=True) for _ in range(max(1, captions // 6))]
    return scores | agreement(pipe, judge, scenes, steps, "") | agreement(pipe, judge, held, steps, "held-out ")


def reconstruction(pipe: Any, count: int = 500) -> dict[str, Any]:
    """VAE round trip of fresh scenes."""
    _, pictures = scene_batch(batch_rng(SCORE_SEED, 0), count, held_out=None)
    with torch.no_grad():
        decoded = [pipe.vae.decode(pipe.vae.encode(part).latent_dist.mode()).sample for part in pictures.split(50)]
    return {"vae_psnr_db": round(psnr(torch.cat(decoded), pictures), 2)}


def inversion(pipe: Any, steps: int, count: int = 20) -> dict[str, Any]:
    """DDIM inversion without CFG and sampling back, full captions."""
    from freectl.engine import Engine
    from freectl.inversion import invert
    from freectl.sampler import Lane, sample

    engine = Engine(pipe)
    rng = random.Random(f"inversion/{SCORE_SEED}")
    scenes = [random_scene(rng, held_out=False) for _ in range(count)]
    pictures = [render(scene) for scene in scenes]
    clean = engine.encode_images(pictures)
    prompt = engine.encode_prompt([scene.caption for scene in scenes])
    timesteps = engine.timesteps(steps)
    start = invert(engine.denoiser, engine.scheduler, clean, prompt, timesteps).start
    lanes = sample(engine.denoiser, engine.scheduler, {"edit": Lane(start, prompt)}, timesteps)
    decoded = engine.decode(lanes["edit"].latents)
    return {"inversion_psnr_db": round(psnr(decoded, pipe.image_processor.preprocess(pictures)), 2)}


def judge_scores(judge: Any, count: int) -> dict[str, Any]:
    """The judge on clean scenes: accuracy a head, mask IoU, and its confidence on noise."""
    rng = random.Random(f"judge/{SCORE_SEED}")
    scenes = [random_scene(rng) for _ in range(count)]
    verdicts = judge_pictures(judge, [render(scene) for scene in scenes])
    scores: dict[str, Any] = {
        f"judge_{head}_accuracy": _share(
            v.labels[head] == getattr(s, head) for v, s in zip(verdicts, scenes, strict=True)
        )
        for head in HEADS
    }
    ious = [mask_iou(v.mask, render_mask(s)) for v, s in zip(verdicts, scenes, strict=True)]
    scores["judge_mask_iou"] = round(sum(ious) / len(ious), 4)
    noise = torch.randn(100, 3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with torch.no_grad():
        confidence = judge(noise)[0]["object"].softmax(-1).amax(-1).mean()
    scores["judge_object_confidence_on_noise"] = round(float(confidence), 4)
    return scores


def agreement(pipe: Any, judge: Any, scenes: list[Scene], steps: int, label: str) -> dict[str, Any]:
    """Share of samples in which the judge sees the caption's object, style and background; seconds a picture."""
    from diffusers import StableDiffusionPipeline

    from freectl import families

    plain = StableDiffusionPipeline.from_pipe(pipe)
    plain.set_progress_bar_config(disable=True)
    verdicts, start = [], time.perf_counter()
    for first in range(0, len(scenes), BATCH):
        part = scenes[first : first + BATCH]
        pictures = plain(
            [scene.caption for scene in part],
            num_inference_steps=steps,
            guidance_scale=families.MINI.guidance_scale,
            generator=[torch.Generator().manual_seed(first + i) for i in range(len(part))],
        ).images
        verdicts += judge_pictures(judge, pictures)
    seconds = (time.perf_counter() - start) / len(scenes)
    scores: dict[str, Any] = {}
    for head in HEADS:
        right = [v.labels[head] == getattr(s, head) for v, s in zip(verdicts, scenes, strict=True)]
        scores[f"{label}{head}_agreement"] = _share(right)
        if head == "style" and not label:
            for style in HEADS["style"]:
                chosen = [v for v, s in zip(verdicts, scenes, strict=True) if s.style == style]
                objects = [s.object for s in scenes if s.style == style]
                seen = [v.labels["object"] == o for v, o in zip(chosen, objects, strict=True)]
                scores[f"object_agreement_{style}"] = _share(seen)
    return scores | {f"{label}seconds_a_picture": round(seconds, 2)}


def _share(hits: Any) -> float | None:
    values = list(hits)
    return round(sum(values) / len(values), 4) if values else None
