"""What runs that draw pictures from labels, words or noise are worth."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.gans.measure import TEST_LIMIT, judge_digest, judge_trunk, judged, objects_of


def measure_drawn(folder: Path, data: Path, scenes: Path, target: str, samples: int = 1) -> dict[str, Any]:
    """KID to the test pictures and what the judge sees in as many drawn ones; `scenes` holds their scenes.jsonl.

    From label maps also L1 and, with several `samples`, diversity. Where a class or a caption is asked for, "object" is
    whether the judge sees the object meant; without a condition it is left out.
    """
    from gan_baselines.config import layout_of
    from gan_baselines.data.folders import find_sources
    from gan_baselines.data.pictures import read_picture, to_range, to_tensor
    from gan_baselines.evaluate import evaluate
    from gan_baselines.weights import load_weights

    weights = load_weights(folder / "weights")
    layout = layout_of(weights.model.name)
    report = evaluate(weights, data, limit=TEST_LIMIT, network=judge_trunk(), samples=samples)
    sources = find_sources(data, layout, "test")
    shown = sources.get("B") or sources["picture"]
    files = shown.files[:TEST_LIMIT]
    real = [to_range(to_tensor(read_picture(path))) for path in files]
    objects = objects_of(scenes / "scenes.jsonl")
    wanted = [objects[path.name] for path in files]
    made = from_labels(weights, data, len(files)) if layout == "labelled" else from_noise(weights, shown, len(files))
    seen = judged(made, wanted, target)
    if layout == "single":
        del seen["object"]
    distances = report["AB"]["model"] if layout == "labelled" else {"kid": report["kid"]}
    true = {"true pictures": {"kid": 0.0, **judged(real, wanted, target)}}
    return {**distances, **seen, "judge": judge_digest(), "baselines": true}


def from_labels(weights: Any, data: Path, count: int) -> list[Tensor]:
    """Pictures of the first label maps of the test split."""
    from gan_baselines.data.folders import find_sources
    from gan_baselines.data.sets import PictureSet
    from gan_baselines.inference import translate

    found = find_sources(data, "labelled", "test")
    sides = [PictureSet(found[side]).take(list(range(count))).float() for side in "AI" if side in found]
    net = weights.translators["AB"]
    return [translate(net, maps, weights.multiple) for maps in torch.cat(sides, 1)]


def from_noise(weights: Any, source: Any, count: int) -> list[Tensor]:
    """Pictures from noise, under the classes or captions of the first pictures of `source`."""
    from gan_baselines.data.marks import marked
    from gan_baselines.evaluate import enlarged
    from gan_baselines.inference import sample

    marks = source.marks[:count]
    condition = weights.network.conditions(marked(weights.model, marks)) if marks and _takes(weights.model) else None
    drawn = torch.stack(list(sample(weights.noise_generator, count, 0, condition=condition)))
    return list(enlarged(drawn, weights.model.side))


def _takes(model: Any) -> bool:
    return hasattr(model, "classes") or hasattr(model, "words")
