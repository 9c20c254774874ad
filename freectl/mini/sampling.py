"""Plain text to image with any generator of the embedded world: Stable Diffusion 1 or 3, or the cascade."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from freectl.errors import InputError
from freectl.files import tensor_files

BATCH = 20
GUIDANCE = 4.0
T5_TOKENS = 16
"""What `training.flow` mostly trains with; the longest caption has nine tokens."""
PIPELINES = ("StableDiffusionPipeline", "StableDiffusion3Pipeline")
STAGES = ("base", "sr")
Thresholding = Literal["dynamic", "static", "none"]


class Sampler:
    """One generator, opened; `Sampler(folder)` reads its weights, in float32 on the CPU.

    Args:
        folder: what `freectl mini train` wrote: a diffusers folder, or `cascade` with its two stages.

    Raises:
        InputError: the folder holds no such generator.
    """

    def __init__(self, folder: Path) -> None:
        from diffusers import DiffusionPipeline

        self.kind = generator_kind(folder)
        folders = [folder / stage for stage in STAGES] if self.kind == "cascade" else [folder]
        self.stages: list[Any] = [DiffusionPipeline.from_pretrained(one, dtype=torch.float32) for one in folders]
        for stage in self.stages:
            stage.set_progress_bar_config(disable=True)

    def threshold(self, kind: Thresholding) -> None:
        """How a cascade's predicted pictures stay in -1 to 1 at each step (Saharia et al. 2022, section 2.3).

        Args:
            kind: "dynamic", as trained ones are saved: where the 99.5th percentile of the values is above 1, clip to
                it and divide by it; "static": clip to -1 to 1; "none".

        Raises:
            InputError: the generator draws latents, which know no such range.
        """
        if self.kind != "cascade":
            raise InputError("--thresholding", f"'{kind}' of a generator of latents", "a cascade")
        for stage in self.stages:
            changes = {"thresholding": kind == "dynamic", "clip_sample": kind == "static"}
            stage.scheduler = type(stage.scheduler).from_config(stage.scheduler.config, **changes)

    def draw(
        self,
        captions: Sequence[str],
        steps: int = 50,
        first_seed: int = 0,
        guidance: float = GUIDANCE,
        noise_level: int | None = None,
    ) -> list[Image.Image]:
        """Samples, RGB; picture i has generator seed `first_seed` + i, whatever it is drawn together with.

        Args:
            steps: of each stage. guidance: classifier-free guidance scale of each stage.
            noise_level: timestep of the noise that a cascade's second stage sees its small picture with (noise
                conditioning augmentation), 0 for none; diffusers' own where not given, 250.
        """
        made: list[Image.Image] = []
        for part, seeds in _batches(captions, first_seed):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            options: dict[str, Any] = {
                "num_inference_steps": steps,
                "guidance_scale": guidance,
                "generator": generators,
            }
            if self.kind == "StableDiffusion3Pipeline":
                options["max_sequence_length"] = T5_TOKENS
            if self.kind == "cascade":
                options["clean_caption"] = False  # needs beautifulsoup4, and captions hold no markup
                small = self.stages[0](part, output_type="pt", **options).images
                options |= {} if noise_level is None else {"noise_level": noise_level}
                made += self.stages[1](part, image=small, **options).images
            else:
                made += self.stages[0](part, **options).images
        return made


def generator_kind(folder: Path, option: str = "--model") -> str:
    """The pipeline class of a folder, or "cascade"; reads no weights.

    Raises:
        InputError: neither, or damaged weights.
    """
    tensor_files.check_folder(folder, option)
    indices = [folder / stage / "model_index.json" for stage in STAGES]
    if all(index.exists() for index in indices):
        return "cascade"
    index = folder / "model_index.json"
    kind = json.loads(index.read_text()).get("_class_name") if index.exists() else None
    if kind not in PIPELINES:
        found = f"'{folder}', {'a ' + str(kind) if index.exists() else 'which has no model_index.json'}"
        raise InputError(option, found, "a generator that `freectl mini train` wrote")
    return str(kind)


def _batches(captions: Sequence[str], first_seed: int) -> Iterator[tuple[list[str], range]]:
    for first in range(0, len(captions), BATCH):
        part = list(captions[first : first + BATCH])
        yield part, range(first_seed + first, first_seed + first + len(part))
