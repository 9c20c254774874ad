"""Short runs that compare the choices of a recipe at equal time: `python -m freectl.mini.training.compare OUT`.

Every variant changes one thing of the recipe of a picture size and trains for the same processor time on its own cosine
schedule. A UNet is measured by the mean squared error of the clean latents (a cascade's: pixels of -1 to 1) that it
predicts for fresh scenes at fixed timesteps with the averaged weights (lower is better), a VAE by its reconstruction.
Latents have unit variance.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional

from freectl.denoising.schedules import path_of
from freectl.mini import MODEL_DIR
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.training.cascade import LARGE, CascadePart
from freectl.mini.training.data import batch_rng, scene_batch
from freectl.mini.training.latents import FIRST
from freectl.mini.training.networks import count_parameters
from freectl.mini.training.recipe import RECIPES, Recipe
from freectl.mini.training.run import defaults, fast_bf16
from freectl.mini.training.trainer import TrainConfig, Trainer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import VAEPart

TIMESTEPS = (100, 300, 500, 700, 900)
UNETS: dict[str, Mapping[str, Any]] = {
    "the recipe": {},
    "batch 8": {"batch": 8},
    "batch 32": {"batch": 32},
    "learning rate 5e-4": {"learning_rate": 5e-4},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "eps-prediction": {"prediction": "epsilon"},
    "eps-prediction, min-SNR": {"prediction": "epsilon", "weighting": "min_snr"},
    "min-SNR": {"weighting": "min_snr"},
    "widths 48-96-128": {"widths": (48, 96, 128)},
    "widths 96-192-256": {"widths": (96, 192, 256)},
    "no attention at 16 x 16": {"attention": (False, True, False)},
    "attention at 4 x 4 too": {"attention": (True, True, True)},
    "no empty captions": {"drop_caption": 0.0},
    "20 % empty captions": {"drop_caption": 0.2},
    "text encoder frozen": {"train_text": False},
}
VAES: dict[str, Mapping[str, Any]] = {
    "16 x 16 x 8 (the recipe)": {},
    "16 x 16 x 4": {"latent_channels": 4},
    "16 x 16 x 16": {"latent_channels": 16},
    "8 x 8 x 16": {"vae_widths": (16, 32, 64, 64), "latent_channels": 16},
    "widths 24-48-96": {"vae_widths": (24, 48, 96)},
}
FINE_UNETS: dict[str, Mapping[str, Any]] = {
    "from finished weights": {"start": True},
    "random weights": {},
    "from finished weights, Muon": {"start": True, "muon": True},
    "random weights, Muon": {"muon": True},
    "from finished weights, Muon, 3e-4": {"start": True, "muon": True, "learning_rate": 3e-4},
}
FINE_VAES: dict[str, Mapping[str, Any]] = {
    "from finished weights, Muon": {"start": True},
    "random weights, Muon": {},
    "from finished weights, AdamW, 2e-3": {"start": True, "muon": False, "learning_rate": 2e-3},
    "from finished weights, Muon, 2e-3": {"start": True, "learning_rate": 2e-3},
    "from finished weights, Muon, 16 channels": {"start": True, "latent_channels": 16},
}
CASCADES: dict[str, Mapping[str, Any]] = {
    "T5 (the recipe)": {},
    "CLIP's text tower": {"text": "clip"},
}
VARIANTS = {
    ("unet", 64): UNETS,
    ("vae", 64): VAES,
    ("unet", 128): FINE_UNETS,
    ("vae", 128): FINE_VAES,
    ("cascade-base", 64): CASCADES,
}
COUNTS = {"unet": 192, "vae": 256, "cascade-base": 192}
"""Fresh scenes that a variant is measured on."""
ERRORS = [f"t={t}" for t in TIMESTEPS]
COLUMNS = {"unet": ERRORS, "vae": ["psnr_db", "roughness"], "cascade-base": ERRORS}


MAKERS: dict[str, Callable[[Path, Recipe, Any], Any]] = {
    "unet": lambda model_dir, recipe, _: UNetPart(model_dir, recipe),
    "vae": lambda _model_dir, recipe, _: VAEPart(recipe),
    "cascade-base": lambda model_dir, _recipe, text: CascadePart("cascade-base", model_dir, text=text),
}


def run(
    kind: str, change: Mapping[str, Any], seconds: float, model_dir: Path, size: int = PICTURE_SIZE
) -> dict[str, Any]:
    """Train one variant and measure it; returns plain values.

    Args:
        change: fields of `TrainConfig` and of `Recipe`; "start": whether it begins with the embedded model's weights;
            "text": the encoder of a cascade.
        seconds: of processor time. model_dir: holds `vae` and `tokenizer`. size: side of the pictures.
    """
    config_fields = {k: v for k, v in change.items() if k in TrainConfig.__dataclass_fields__}
    recipe_fields = {k: v for k, v in change.items() if k in Recipe.__dataclass_fields__}
    recipe = replace(RECIPES[size], **recipe_fields)
    config = replace(defaults(kind, size), pictures=10**9, warmup=50, bf16=fast_bf16(), **config_fields)
    if size == PICTURE_SIZE:  # fewer steps in the same time: a shorter average, a shorter way up
        config = replace(config, warmup=20, ema_decay=0.98)

    def made() -> Any:
        part: Any = MAKERS[kind](model_dir, recipe, change.get("text", "t5"))
        if change.get("start"):
            part.start_from(MODEL_DIR)
        return part

    part, timed = made(), made()
    if kind == "unet":
        timed.latents = part.latents
        part.latents.fill(config.seed, FIRST)  # so that encoding is no part of the comparison
    rate = _pictures_a_second(timed, config)
    trainer = Trainer(part, replace(config, pictures=max(config.batch, int(rate * seconds))), Path())
    while trainer.step < trainer.config.steps:
        trainer._train_step()
    trainer.use_ema()
    parameters = sum(count_parameters(module) for module in part.modules.values())
    facts = {"pictures_a_second": round(rate, 1), "pictures": trainer.config.pictures, "parameters": parameters}
    measured = reconstruction if kind == "vae" else clean_errors
    return facts | measured(part, COUNTS[kind])


def _pictures_a_second(part: Any, config: TrainConfig, steps: int = 8) -> float:
    """Throughput in processor time, which other load on the machine changes least."""
    trainer = Trainer(part, config, Path())
    trainer._train_step()
    start = time.process_time()
    for _ in range(steps):
        trainer._train_step()
    return steps * config.batch / (time.process_time() - start)


@torch.no_grad()
def clean_errors(part: UNetPart | CascadePart, count: int) -> dict[str, float]:
    """Mean squared error of the predicted clean latents at each of `TIMESTEPS`, on fresh scenes, full captions.

    Of a cascade's first stage that of the predicted pixels.
    """
    side = LARGE if isinstance(part, CascadePart) else part.recipe.picture_size
    scenes, pictures = scene_batch(batch_rng(-7, 0), count, size=side)
    if isinstance(part, CascadePart):
        latents = functional.avg_pool2d(pictures, LARGE // part.side)
    else:
        latents = torch.cat([part.latents.encode(some) for some in pictures.split(64)])
    text = part.encode_text([scene.caption for scene in scenes])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7))
    found = {}
    for name, timestep in zip(ERRORS, TIMESTEPS, strict=True):
        times = torch.full((count,), timestep)
        noisy = part.scheduler.add_noise(latents, noise, times)
        output: Tensor = part.unet(noisy, times, text).sample[:, : latents.shape[1]]
        clean, _ = path_of(part.scheduler).split(output, noisy, timestep)
        found[name] = round(float((clean - latents).square().mean()), 4)
    return found


@torch.no_grad()
def reconstruction(part: VAEPart, count: int) -> dict[str, float]:
    """Reconstruction in dB, and the mean squared step between neighbouring latents of unit variance."""
    pictures = part.pictures(-7, 0, count)
    latents = torch.cat([part.vae.encode(some).latent_dist.mode() for some in pictures.split(64)])
    decoded = torch.cat([part.vae.decode(some).sample for some in latents.split(64)])
    psnr = 10 * torch.log10(4 / (decoded - pictures).square().mean())
    unit = latents / latents.std()
    rough = (unit[..., 1:] - unit[..., :-1]).square().mean()
    return {"psnr_db": round(float(psnr), 2), "roughness": round(float(rough), 3)}


def main(
    out: Annotated[Path, typer.Argument(help="JSON lines; variants that it already has are not run again.")],
    seconds: Annotated[float, typer.Option(help="Processor seconds of training a variant.", min=1)] = 90.0,
    kind: Annotated[str, typer.Option(help="unet, vae or cascade-base.")] = "unet",
    size: Annotated[int, typer.Option(help="Side of the pictures: 64 or 128.")] = PICTURE_SIZE,
    model: Annotated[Path, typer.Option(help="Folder that holds `vae` and `tokenizer`.")] = MODEL_DIR,
) -> None:
    """Run all variants of a kind, one after another on one thread, and print a Markdown table."""
    torch.set_num_threads(1)
    if (kind, size) not in VARIANTS:
        raise typer.BadParameter(
            f"found {kind} and {size}; allowed: unet or vae, 64 or 128; cascade-base, 64", param_hint="--kind --size"
        )
    variants = VARIANTS[kind, size]
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(line["kind"], line["variant"]): line for line in lines}
    for name, change in variants.items():
        if (kind, name) not in done:
            done[kind, name] = {"kind": kind, "variant": name, **run(kind, change, seconds, model, size)}
            with out.open("a") as file:
                file.write(json.dumps(done[kind, name]) + "\n")
    columns = ["parameters", "pictures_a_second", *COLUMNS[kind]]
    rows = [[name, *(str(done[kind, name][column]) for column in columns)] for name in variants]
    table = [["variant", *columns], ["---"] * (len(columns) + 1), *rows]
    sys.stdout.write("\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")


if __name__ == "__main__":
    typer.run(main)
