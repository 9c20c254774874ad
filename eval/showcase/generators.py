"""Generators of the embedded world, sampled: are the words right, and how far are they from true scenes as a set?

`python -m eval.generators FOLDER...` prints a row a folder and setting. A cascade has two more settings
(Saharia et al. 2022): how predicted pictures are kept in range, how noisy the second stage sees the first's.
"""

import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from PIL import Image

from eval.scores.intervals import Estimate, share
from eval.scores.metrics import coverage, features_of, kid
from eval.scores.networks import to_tensor
from eval.scores.set_scores import judge_features
from freectl.errors import InputError
from freectl.files.tensor_files import check_folder
from freectl.mini import MODEL_DIR
from freectl.mini.captions import Wanted, fixed_captions
from freectl.mini.judge import HEADS, Judge, judge_pictures, load_judge
from freectl.mini.sampling import GUIDANCE, Sampler, Thresholding, generator_kind
from freectl.mini.scene import random_scene, render

REAL_SEED = 4321
COLUMNS = ("generator", "guidance", "thresholding", "noise level", *(f"{head} %" for head in HEADS), "all %",
           "KID x10³", "coverage %", "s a picture")  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """How samples are drawn; None leaves a cascade as it is saved, and is all that generators of latents take."""

    guidance: float
    thresholding: Thresholding | None = None
    noise_level: int | None = None


@dataclass(frozen=True)
class Sampled:
    """What was measured of one setting.

    Attributes:
        right: by word, and "all": share of pictures in which the judge sees it.
        kid, covered: kernel distance and coverage of the judge's features to those of true scenes with these words.
        seconds: of one picture, drawn in batches.
    """

    right: dict[str, Estimate]
    kid: float
    covered: float
    seconds: float


def true_scenes(wanted: Sequence[Wanted], side: int) -> list[Image.Image]:
    """A scene with each caption's words, its pose drawn at random, side x side px."""
    rng = random.Random(REAL_SEED)
    words = ({head: getattr(one, head) for head in HEADS} for one in wanted)
    return [render(random_scene(rng).with_words(**named), side) for named in words]


def measured(sampler: Sampler, judge: Judge, wanted: Sequence[Wanted], setting: Setting, steps: int) -> Sampled:
    """Draw every caption, the seed being its number, and measure; at least two captions.

    Raises:
        InputError: a setting of cascades for a generator of latents.
    """
    if setting.thresholding is not None:
        sampler.threshold(setting.thresholding)
    start = time.perf_counter()
    captions = [one.caption for one in wanted]
    pictures = sampler.draw(captions, steps, 0, setting.guidance, setting.noise_level)
    seconds = (time.perf_counter() - start) / len(pictures)
    seen = [verdict.labels for verdict in judge_pictures(judge, pictures)]
    right = {head: [labels[head] == getattr(one, head) for labels, one in zip(seen, wanted, strict=True)]
             for head in HEADS}  # fmt: skip
    right["all"] = [all(each) for each in zip(*right.values(), strict=True)]
    read, name = judge_features(judge)
    true = true_scenes(wanted, pictures[0].width)
    real, made = (features_of(_shown(some, judge), read) for some in (true, pictures))
    shares = {what: share([float(one) for one in each]) for what, each in right.items()}
    return Sampled(shares, kid(real, made, name).mean, coverage(real, made, name).mean, seconds)


def _shown(pictures: Sequence[Image.Image], judge: Judge) -> torch.Tensor:
    """As the judge reads them: pictures of another size enlarged or reduced."""
    side = (judge.size, judge.size)
    return to_tensor(*(one if one.size == side else one.resize(side, Image.Resampling.LANCZOS) for one in pictures))


def row(name: str, setting: Setting, found: Sampled) -> str:
    """A line of the table."""
    told = [name, f"{setting.guidance:g}", setting.thresholding or "", setting.noise_level]
    shares = [f"{100 * one.mean:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})" for one in found.right.values()]
    sets = [f"{1e3 * found.kid:.2f}", f"{100 * found.covered:.0f}", f"{found.seconds:.2f}"]
    return "| " + " | ".join("" if cell is None else str(cell) for cell in (*told, *shares, *sets)) + " |"


def settings_of(
    kind: str, guidance: Sequence[float], thresholding: Sequence[Any], levels: Sequence[Any]
) -> Iterator[Setting]:
    """All combinations; a generator of latents has guidance alone."""
    if kind != "cascade":
        yield from map(Setting, guidance)
    else:
        for some in product(guidance, thresholding or [None], levels or [None]):
            yield Setting(*some)


def main(
    folders: Annotated[list[Path], typer.Argument(help="Generators: model folders, and `flow` or `cascade` in them.")],
    guidance: Annotated[list[float], typer.Option(min=0, max=100, help="Guidance scales; may repeat.")] = [GUIDANCE],  # noqa: B006
    thresholding: Annotated[list[str], typer.Option(help="Of cascades: dynamic, static, none; may repeat.")] = [],  # noqa: B006
    noise_level: Annotated[list[int], typer.Option(min=0, max=999, help="Of cascades; may repeat.")] = [],  # noqa: B006
    captions: Annotated[int | None, typer.Option(min=2, help="Of the fixed ones; default all 300.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps, of each stage.")] = 50,
    judge: Annotated[Path, typer.Option(help="Folder of the judge; default the embedded one.")] = MODEL_DIR / "judge",
) -> None:
    """Sample the fixed captions and print what the judge sees, and the distance to true scenes, row by row."""
    kinds = {folder: generator_kind(folder, "FOLDER") for folder in folders}
    if (thresholding or noise_level) and "cascade" not in kinds.values():
        option = "--thresholding" if thresholding else "--noise-level"
        raise InputError(option, "generators of latents alone", "a cascade among the folders")
    if unknown := set(thresholding) - set(get_args(Thresholding)):
        raise InputError("--thresholding", f"'{min(unknown)}'", ", ".join(get_args(Thresholding)))
    check_folder(judge, "--judge")
    if not (judge / "config.json").exists():
        raise InputError("--judge", f"'{judge}', which has no config.json", "a folder that `freectl mini train` wrote")
    judges = load_judge(judge)
    wanted = [one for one in fixed_captions() if not one.held_out][:captions]
    sys.stdout.write("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n")
    for folder, kind in kinds.items():
        for setting in settings_of(kind, guidance, thresholding, noise_level):
            sampler = Sampler(folder)
            sys.stdout.write(row(folder.name, setting, measured(sampler, judges, wanted, setting, steps)) + "\n")
            sys.stdout.flush()
