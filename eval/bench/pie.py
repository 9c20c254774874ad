"""PIE-Bench in its published layout: a folder with `mapping_file.json` and `annotation_images/`."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.bench.cases import Bench, Case
from eval.bench.files import read, safe_key
from eval.files import parsed
from freectl.errors import InputError
from freectl.files.paths import check_file

PIE_KINDS = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change colour",
    "change material",
    "change background",
    "change style",
)
"""PIE-Bench's `editing_type_id` 0 to 9."""
PIE_SIDE = 512
LAYOUT = "the folder of PIE-Bench: mapping_file.json and annotation_images/"
ABOUT = "PIE-Bench: background scores outside the published masks, target prompt for CLIP"


def load_pie(folder: Path) -> Bench:
    """PIE-Bench (Ju et al., ICLR 2024): 700 pictures of 512 px, ten edit types.

    Raises:
        InputError: a file is missing or of another layout.
    """
    path = folder / "mapping_file.json"
    entries = parsed(path, json.loads, LAYOUT)
    if not isinstance(entries, dict) or not entries:
        raise InputError("--data", f"'{path}', not a mapping with entries", LAYOUT)
    try:
        cases = tuple(_pie_case(key, entry, folder / "annotation_images") for key, entry in entries.items())
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("--data", f"'{path}' with an entry that does not fit ({error!r})", LAYOUT) from error
    return Bench("pie", "pie", cases, ABOUT, files=(path,))


def _pie_case(key: str, entry: dict[str, Any], pictures: Path) -> Case:
    path = pictures / entry["image_path"]
    check_file(path, "--data", LAYOUT)
    runs = check_runs([int(number) for number in entry["mask"]])
    words = (entry.get("blended_word") or "").split()
    kind = int(entry["editing_type_id"])
    if kind not in range(len(PIE_KINDS)):
        raise ValueError(f"editing_type_id {kind}")
    return Case(
        key=safe_key(key),
        kind=PIE_KINDS[kind],
        source_prompt=_without_brackets(entry["original_prompt"]),
        prompt=_without_brackets(entry["editing_prompt"]),
        picture=partial(read, path),
        mask=partial(decode_runs, runs),
        concept=words[0] if words else None,
        files=(path,),
    )


def decode_runs(runs: Sequence[int], side: int = PIE_SIDE) -> Image.Image:
    """A mask stored as start, length, start, length, ... over the pixels row by row; mode "L", 0 or 255.

    The outermost pixels are always inside, as in the benchmark's own decoder: its annotations err there.

    Raises:
        ValueError: see `check_runs`.
    """
    check_runs(runs, side)
    flat = np.zeros(side * side, dtype=np.uint8)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 255
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = 255
    mask[:, [0, -1]] = 255
    return Image.fromarray(mask)


def check_runs(runs: Sequence[int], side: int = PIE_SIDE) -> list[int]:
    """The runs, checked without decoding them.

    Raises:
        ValueError: an odd count, a start outside the picture, or a negative length.
    """
    starts, lengths = runs[::2], runs[1::2]
    if len(runs) % 2 or any(not 0 <= start <= side * side for start in starts) or any(n < 0 for n in lengths):
        raise ValueError("mask is not pairs of start and length")
    return list(runs)


def _without_brackets(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")
