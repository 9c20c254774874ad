"""Which results are made together: those that share model, method, settings and size, in the order of their shapes."""

import json
import math
from collections.abc import Sequence
from typing import Any

from freectl.tasks.batch.rows import Wanted

OWN = ("prompt", "negative_prompt", "source_prompt", "seed", "background", "keep_alpha")
"""Options in which results of one batch of the network may differ."""
ALONE = ("mask", "keep", "appearance_image", "keep_background", "keep_concept", "long_prompts")
"""Options that place something in one picture, or that fill up the texts of a run to the longest one's pieces."""
MOST = 8
"""Results in a bundle. Larger batches gain little: at 8 the network is busy."""


def shared(options: dict[str, Any], settings: dict[str, Any]) -> str:
    """What results of one batch have in common, as a key."""
    return json.dumps([{k: v for k, v in options.items() if k not in OWN}, settings], sort_keys=True)


def goes_together(options: dict[str, Any]) -> bool:
    """Whether a result can be made in a batch with others."""
    return all(options[name] in (None, "none", False) for name in ALONE)


def bundles(wanted: Sequence[Wanted], most: int = MOST, workers: int = 1) -> list[list[Wanted]]:
    """All results in bundles of at most `most`; as many bundles as there are workers, where there are as many results.

    Results of one picture lie side by side, and pictures of one shape: they share inversions and batches.
    """
    most = max(1, min(most, math.ceil(len(wanted) / workers)))
    groups: dict[str, list[Wanted]] = {}
    for one in wanted:
        groups.setdefault(shared(one.options, one.settings), []).append(one)
    models = list(dict.fromkeys(str(one.options["model"]) for one in wanted))
    ordered = sorted(groups.values(), key=lambda group: models.index(str(group[0].options["model"])))
    made: list[list[Wanted]] = []
    for group in ordered:
        first = {image: index for index, image in reversed(list(enumerate(one.image for one in group)))}
        group.sort(key=lambda one: (_shape(one), first[one.image]))
        made += [group[start : start + most] for start in range(0, len(group), most)]
    return made


def _shape(one: Wanted) -> float:
    return 0.0 if one.size is None else round(one.size[0] / one.size[1], 2)
