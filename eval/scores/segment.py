"""Are the labels still there? `python -m eval.segment score` segments pictures and compares with their label maps.

For pictures made from label maps, or from anything whose labels are known, as in the label-to-photo literature:
per-pixel accuracy, per-class accuracy and mean class IoU (Isola et al. 2017, section 4.1) over all pixels of all
pictures. `labels` writes the maps of scenes of the embedded world, whose segmenter is the judge.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

from eval.bench.files import read
from eval.files import made_folder, parsed, write_picture
from eval.scores.metrics import confusion, segmentation_scores
from freectl.cli.output import Format, FormatOption, emit
from freectl.errors import InputError
from freectl.files.paths import check_file
from freectl.mini.domain import OBJECTS
from gan_baselines.data.pictures import SUFFIXES

MIDDLE = 127
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)  # fmt: skip


@app.command()
def score(
    pictures: Annotated[Path, typer.Option(help="Folder of pictures.")],
    labels: Annotated[Path, typer.Option(help="Folder of label maps of the same names: PNG, a class index a pixel.")],
    segmenter: Annotated[
        str, typer.Option(help="judge, a .safetensors file of torchvision's FCN, a folder or a hub id of transformers.")
    ] = "judge",
    ignore: Annotated[int | None, typer.Option(help="Label of pixels that do not count, such as 255.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    form: FormatOption = Format.human,
) -> None:
    """Segment pictures, and compare with their labels."""
    from eval.scores.segmenters import load_segmenter
    from freectl.pipelines.loading import resolve_device

    pairs = matched(pictures, labels)
    segment, names = load_segmenter(segmenter, resolve_device(device)[0])
    counts = torch.zeros(len(names), len(names), dtype=torch.long)
    for picture, path in pairs:
        true = read_labels(path)
        found = segment(read(picture, "--pictures"), (true.shape[0], true.shape[1]))
        try:
            counts += confusion(found, true, len(names), ignore)
        except ValueError as error:
            allowed = f"labels 0 to {len(names) - 1}, the classes of {segmenter}, and what --ignore names"
            raise InputError("--labels", f"'{path}' ({error})", allowed) from error
    if not counts.any():
        raise InputError("--ignore", f"{ignore}, the label of every pixel", "a label that leaves some to count")
    scores = segmentation_scores(counts)
    value = {"segmenter": segmenter, "pictures": len(pairs), **asdict(scores)}
    text = ", ".join(f"{key.replace('_', ' ')} {100 * number:.1f} %" for key, number in asdict(scores).items())
    emit(value, f"{len(pairs)} pictures by {segmenter}: {text}", form)


@app.command()
def labels(
    scenes: Annotated[Path, typer.Option(help="Folder that `freectl mini scenes` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the maps, one a picture and of its name.")],
    part: Annotated[str, typer.Option(help="Folder inside it whose pictures are meant.")] = "test/B",
) -> None:
    """Write label maps of scenes: 0 background, 1 and up the objects in the judge's order."""
    allowed = "a folder that `freectl mini scenes` wrote"
    lines = parsed(scenes / "scenes.jsonl", scene_lines, allowed, "--scenes")
    meant = [line for line in lines if line.picture.parent.as_posix() == part]
    if not meant:
        raise InputError("--part", f"'{part}'", ", ".join(sorted({line.picture.parent.as_posix() for line in lines})))
    for line in meant:  # all of them before the first is written
        check_file(scenes / line.mask, "--scenes", allowed)
    made_folder(out, "--out")
    for line in meant:
        write_picture(out / f"{line.picture.stem}.png", Image.fromarray(label_map(scenes, line)))
    sys.stdout.write(f"{len(meant)} label maps in {out}\n")


class SceneLine(NamedTuple):
    """A scene's picture and mask, relative to its folder, and the label of its object."""

    picture: Path
    mask: Path
    label: int


def label_map(scenes: Path, line: SceneLine) -> NDArray[np.uint8]:
    """Labels (H, W) of a scene in the folder `scenes`: 0 background, else the object's.

    Raises:
        InputError: its mask cannot be read.
    """
    inside = np.asarray(read(scenes / line.mask, "--scenes").convert("L")) > MIDDLE
    return (inside * line.label).astype(np.uint8)


def scene_lines(text: str) -> list[SceneLine]:
    """Lines of scenes.jsonl; ValueError where one does not fit."""
    found, objects = [], list(OBJECTS)
    for line in map(json.loads, text.splitlines()):
        try:
            found.append(SceneLine(Path(line["picture"]), Path(line["mask"]), 1 + objects.index(line["object"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"an entry that does not fit ({error!r})") from error
    return found


def matched(pictures: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pictures with their label maps, by name without ending.

    Raises:
        InputError: no such folder, no pictures, or a picture without a map.
    """
    for option, folder in (("--pictures", pictures), ("--labels", labels)):
        if not folder.is_dir():
            raise InputError(option, f"'{folder}'", "a folder")
    files = sorted(path for path in pictures.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        allowed = f"files ending in {', '.join(sorted(SUFFIXES))}"
        raise InputError("--pictures", f"'{pictures}' without pictures", allowed)
    pairs = [(path, labels / f"{path.stem}.png") for path in files]
    for path, own in pairs:
        if not own.is_file():
            raise InputError("--labels", f"nothing for '{path.name}'", f"'{own.name}' in '{labels}'")
    return pairs


def read_labels(path: Path) -> torch.Tensor:
    """A label map (H, W) of class indices.

    Raises:
        InputError: unreadable, or not of one channel.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:  # raw: `load_image` would give colours, not indices
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError("--labels", f"'{path}', unreadable", "a PNG with a class index a pixel") from error
    if pixels.ndim != 2:
        raise InputError("--labels", f"'{path}' in colours", "a PNG with a class index a pixel, gray or palette")
    return torch.from_numpy(pixels.astype(np.int64))
