"""Train parts of the embedded model in order; each writes into the model folder when it is done."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from freectl.errors import InputError
from freectl.files import tensor_files
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.training.cascade import CascadePart
from freectl.mini.training.clip import ClipPart
from freectl.mini.training.control import ControlPart
from freectl.mini.training.flow import FlowPart
from freectl.mini.training.judge import JudgePart
from freectl.mini.training.recipe import RECIPES
from freectl.mini.training.tokenizer import write_tokenizer
from freectl.mini.training.trainer import Part, TrainConfig, Trainer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import DecoderPart, VAEPart

PARTS: tuple[str, ...] = ("vae", "unet", "clip", "judge")
"""Those of the default model."""
MORE_PARTS: tuple[str, ...] = ("decoder", "flow", "controlnet", "t2i-adapter", "cascade-base", "cascade-sr")
"""Those that `--part all` leaves out."""
DEFAULTS: dict[str, TrainConfig] = {
    "vae": TrainConfig(pictures=60_000, batch=8, learning_rate=2e-3, ema_decay=0.999, sheet_steps=1000),
    "unet": TrainConfig(pictures=1_000_000),
    "clip": TrainConfig(pictures=300_000, batch=64, warmup=100, ema_decay=0.998, muon=True),
    "judge": TrainConfig(pictures=120_000, batch=32, learning_rate=2e-3, ema_decay=0.998),
    "decoder": TrainConfig(pictures=40_000, batch=4, ema_decay=0.998, warmup=100, muon=True, sheet_steps=500),
    "flow": TrainConfig(pictures=600_000, batch=32),
    "controlnet": TrainConfig(pictures=60_000, batch=16, learning_rate=5e-4),
    "t2i-adapter": TrainConfig(pictures=60_000, batch=16),
    "cascade-base": TrainConfig(pictures=400_000, batch=32),
    "cascade-sr": TrainConfig(pictures=100_000, batch=16),
}
SHIPPED: dict[str, Mapping[str, Any]] = {
    "vae": {"pictures": 24_000, "batch": 4, "muon": True, "warmup": 100, "ema_decay": 0.998, "sheet_steps": 500},
    "unet": {"pictures": 2_000_000},
}
"""What differs where pictures are of the embedded world's size."""


EXPORTS = {"unet": "", "decoder": "vae", "cascade-base": "cascade/base", "cascade-sr": "cascade/sr"}
"""Folders below the model folder, where they are not named after the part."""


def defaults(name: str, size: int) -> TrainConfig:
    """The configuration of a part for pictures of that side."""
    return replace(DEFAULTS[name], **SHIPPED.get(name, {})) if size >= PICTURE_SIZE else DEFAULTS[name]


NEEDS: dict[str, tuple[str, ...]] = {
    "vae": (),
    "cascade-base": (),
    "cascade-sr": ("cascade/base/model_index.json",),
    "controlnet": ("vae/config.json", "unet/config.json"),
    "t2i-adapter": ("vae/config.json", "unet/config.json"),
}
"""What a part takes from the model folder; the others take the autoencoder."""


def check_inputs(name: str, model_dir: Path, size: int) -> None:
    """Whether a part finds what it builds on, before anything is loaded or written.

    Raises:
        InputError: the model folder lacks an earlier part, is of another picture size, or has damaged weights.
    """
    tensor_files.check_folder(model_dir, "--model")
    for file in NEEDS.get(name, ("vae/config.json",)):
        if not (model_dir / file).exists():
            raise InputError("--model", f"'{model_dir}', which has no {file}", f"a folder with what {name} builds on")
    vae = model_dir / "vae" / "config.json"
    if vae.exists() and name not in ("cascade-base", "cascade-sr"):
        found = json.loads(vae.read_text()).get("sample_size")
        if found != size:
            raise InputError("--size", f"{size} for '{model_dir}', whose autoencoder is of {found} px", str(found))


def fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; without that, autocast takes four times float32's time."""
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def make_part(name: str, model_dir: Path, size: int, cache: Path | None = None) -> Part:
    """The part of that name, for pictures of that side; latents that it uses again lie in `cache`."""
    recipe = RECIPES[size]
    made: dict[str, Callable[[], Part]] = {
        "vae": lambda: VAEPart(recipe),
        "decoder": lambda: DecoderPart(model_dir, recipe),
        "unet": lambda: UNetPart(model_dir, recipe, cache),
        "flow": lambda: FlowPart(model_dir, recipe, cache),
        "controlnet": lambda: ControlPart("controlnet", model_dir, recipe, cache),
        "t2i-adapter": lambda: ControlPart("t2i-adapter", model_dir, recipe, cache),
        "clip": lambda: ClipPart(model_dir, size),
        "judge": lambda: JudgePart(model_dir, size),
        "cascade-base": lambda: CascadePart("cascade-base", model_dir),
        "cascade-sr": lambda: CascadePart("cascade-sr", model_dir),
    }
    return made[name]()


def train_part(
    name: str,
    config: TrainConfig,
    run_dir: Path,
    model_dir: Path,
    threads: int | None = None,
    init: Path | None = None,
    compiled: bool = False,
    size: int = PICTURE_SIZE,
) -> None:
    """Train one part (or go on with it) and write its weights below `model_dir`.

    Args:
        init: model folder whose weights a new run starts from, in place of random ones.
        compiled: `torch.compile` the networks: pays after some ten minutes, and changes the last bits.
        size: side of the pictures, one of `RECIPES`.
    """
    if threads:
        torch.set_num_threads(threads)
    write_tokenizer(model_dir / "tokenizer")
    part = make_part(name, model_dir, size, run_dir / "latents")
    if init is not None:
        part.start_from(init)
    if compiled:
        for module in part.modules.values():
            # an autoencoder has two ways through it, and neither is its forward
            for network in (module.encoder, module.decoder) if isinstance(module, AutoencoderKL) else (module,):
                network.compile()
    Trainer(part, config, run_dir / name).run()
    with torch.compiler.set_stance("force_eager"):
        part.export(model_dir / EXPORTS.get(name, name))
