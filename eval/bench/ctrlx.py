"""Ctrl-X's evaluation data in its published layout: a folder with two YAML files and one folder a category.

`data_prompt-driven.yaml` is of its Table 5: a picture, and prompts for what its structure should become.
`data_structure+appearance.yaml` is of its Table 2: a picture of the structure, one of the looks, and one prompt.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from eval.bench.cases import Bench, Case, Layout
from eval.bench.files import read, safe_key
from eval.files import parsed
from freectl.errors import InputError
from freectl.files.paths import check_file

PROMPTS_FILE, PAIRS_FILE = "data_prompt-driven.yaml", "data_structure+appearance.yaml"
LAYOUT = f"the folder of Ctrl-X's data: {PROMPTS_FILE}, {PAIRS_FILE} and one folder a category"
GROUPS: dict[str, tuple[str, ...]] = {
    "natural": ("photo", "painting", "cartoon", "birds eye view"),
    "supported": ("canny edge map", "depth map", "human pose image", "line drawing", "hed edge drawing", "normal map",
                  "segmentation mask"),
    "new": ("metadrive", "birds eye view metadrive", "3d mesh", "3d humanoid", "point cloud", "sketch"),
}  # fmt: skip
"""The paper's groups, as kinds of cases: pictures, conditions that ControlNets are trained for, and others. The data's
page says "metadrive" where its evaluation says "birds eye view metadrive"."""


def load_prompts(folder: Path) -> Bench:
    """175 prompts for the structure of condition pictures (Lin et al., NeurIPS 2024, Table 5).

    Raises:
        InputError: a file is missing or of another layout.
    """
    return _load(folder, PROMPTS_FILE, "images", _of_prompts, "ctrl-x", "Ctrl-X, prompt-driven: structure and a prompt")


def load_pairs(folder: Path) -> Bench:
    """256 pairs of a structure and an appearance picture (Lin et al., NeurIPS 2024, Table 2).

    Raises:
        InputError: a file is missing or of another layout.
    """
    about = "Ctrl-X, structure and appearance: methods that take an appearance picture are given one"
    return _load(folder, PAIRS_FILE, "pairs", _of_pair, "ctrl-x-pairs", about)


def _load(
    folder: Path, file: str, top: str, cases_of: Callable[[Any, Path], Iterator[Case]], layout: Layout, about: str
) -> Bench:
    path = folder / file
    entries = parsed(path, yaml.safe_load, LAYOUT)
    if not isinstance(entries, dict) or not isinstance(entries.get(top), list):
        raise InputError("--data", f"'{path}' without a list of {top}", LAYOUT)
    try:
        cases = tuple(case for entry in entries[top] for case in cases_of(entry, folder))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("--data", f"'{path}' with an entry that does not fit ({error!r})", LAYOUT) from error
    if not cases or len({case.key for case in cases}) < len(cases):
        found = "an id that occurs twice" if cases else "no cases"
        raise InputError("--data", f"'{path}' with {found}", LAYOUT)
    return Bench(layout, layout, cases, about)


def _of_prompts(entry: dict[str, Any], folder: Path) -> Iterator[Case]:
    for asked in entry["prompts"]:
        yield _case(asked["id"], entry, asked["prompt"], folder)


def _of_pair(entry: dict[str, Any], folder: Path) -> Iterator[Case]:
    name = PurePosixPath(entry["id"]).stem  # ids of pairs end like files
    yield _case(name, entry["f1_data"], entry["target_prompt"], folder, _file(entry["f2_data"], folder))


def _case(key: str, structure: dict[str, Any], prompt: str, folder: Path, looks: Path | None = None) -> Case:
    """A case whose picture is followed as a condition, and is also what structure is compared with."""
    path, said = _file(structure, folder), str(structure["description"])
    return Case(
        key=safe_key(str(key)),
        kind=_group(structure["type"]),
        source_prompt=said,
        prompt=str(prompt),
        picture=partial(read, path),
        original=partial(read, path),
        appearance=partial(read, looks) if looks else None,
        concept=_concept(str(structure.get("subject", "")), said),
        files=(path, looks) if looks else (path,),
    )


def _file(entry: dict[str, Any], folder: Path) -> Path:
    path = folder / entry["filename"]
    check_file(path, "--data", LAYOUT)
    return path


def _group(kind: str) -> str:
    """The paper's group of a type of picture."""
    for group, kinds in GROUPS.items():
        if kind.lower() in kinds:
            return group
    allowed = ", ".join(name for kinds in GROUPS.values() for name in kinds)
    raise InputError("--data", f"a picture of type '{kind}'", allowed)


def _concept(subject: str, said: str) -> str | None:
    """The subject without its article, where the description has those words."""
    first, _, rest = subject.partition(" ")
    words = rest if first.lower() in ("a", "an", "the") and rest else subject
    return words if words and words.lower() in said.lower() else None
