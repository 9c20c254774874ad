"""Measuring a weights folder on a data folder, always beside the baselines that need no training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_baselines.config import layout_of
from gan_baselines.data.folders import Split, find_sources, has_split, same_names
from gan_baselines.data.pictures import to_range
from gan_baselines.data.sets import PictureSet
from gan_baselines.errors import InputError
from gan_baselines.inference import sample, translate
from gan_baselines.metrics import kid, mean_l1, mean_psnr, pooled_features, random_network
from gan_baselines.weights import Weights

NETWORK = "random convolutional network (seed 0), features standardised by the real pictures"


def evaluate(
    weights: Weights,
    data: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    network: nn.Module | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """Measure every generator of `weights` (or `only` the one so named) on the test split of `data`.

    Where there is no test split, the training split is measured.

    Translations: L1 (range [-1, 1]) and PSNR (dB) to the true picture where it is known (pairs, or test folders of
    equal file names), kernel distance (KID) to the target collection, and for two directions the L1 of the cycle; each
    beside identity (the input unchanged) and mean (the mean target picture of the training split, where there is one).
    Noise models: KID to the collection.

    Args:
        limit: pictures of each side at most, the first by name.
        network: features of the KID: (N, 3, H, W) in [-1, 1] to maps (N, C, h, w). None is a fixed random network.

    Raises:
        InputError: the folder does not fit the model.
    """
    layout = layout_of(weights.model.name)
    split: Split = "test" if has_split(data, layout, "test") else "train"
    sources = find_sources(data, layout, split)
    side = weights.about.get("height") if weights.about.get("resized") else None
    sets = {name: PictureSet(source, side) for name, source in sources.items()}
    pictures = {name: to_range(s.take(list(range(min(len(s), limit or len(s)))))) for name, s in sets.items()}
    report: dict[str, Any] = {"split": split, "pictures": {name: len(p) for name, p in pictures.items()}}
    report["kid_network"] = NETWORK if network is None else "network of the caller's"
    network = network or random_network()
    if layout == "single":
        return report | {"kid": _noise_kid(weights, pictures["picture"], seed, network)}
    known = layout == "paired" or same_names(sources)
    report["truth"] = known
    learned = find_sources(data, layout, "train") if has_split(data, layout, "train") else sources
    names = [name for name in weights.translators if only in (None, name)]
    means = {name[1]: _mean_picture(PictureSet(learned[name[1]], side)) for name in names}
    return report | {name: _direction(weights, name, pictures, means[name[1]], known, seed, network) for name in names}


def table(report: dict[str, Any]) -> list[list[str]]:
    """Rows (direction, method, measure columns) of a report for people."""
    rows = []
    for name, methods in report.items():
        if isinstance(methods, dict) and "model" in methods:
            for method, values in methods.items():
                rows.append([name, method, *(_shown(values.get(key)) for key in ("l1", "psnr", "kid", "cycle_l1"))])
    return rows


def _mean_picture(pictures: PictureSet) -> Tensor:
    total = torch.zeros(3, pictures.height, pictures.width, dtype=torch.float64)
    for index in range(len(pictures)):
        total += pictures.take([index])[0]
    return to_range(total / len(pictures))


def _noise_kid(weights: Weights, real: Tensor, seed: int, network: nn.Module) -> float:
    size = weights.model.size
    if real.shape[-2:] != (size, size):
        raise InputError("--data", f"pictures of {real.shape[-1]}x{real.shape[-2]} px", f"{size}x{size} px")
    fake = list(sample(weights.noise_generator, max(len(real), 2), seed))
    return _kid(pooled_features(network, real), pooled_features(network, fake))


def _direction(
    weights: Weights, name: str, pictures: dict[str, Tensor], mean: Tensor, known: bool, seed: int, network: nn.Module
) -> dict[str, dict[str, float]]:
    source, target = pictures[name[0]], pictures[name[1]]
    dropout = getattr(weights.model.generator, "dropout", False)

    def run(generator: str) -> Callable[[Tensor], Tensor]:
        net = weights.translators[generator]
        return lambda p: translate(net, p, weights.multiple, dropout=dropout, seed=seed)

    made = torch.stack([run(name)(p) for p in source])
    rivals = {"model": made, "identity": source, "mean": mean.expand_as(source)}
    if any(r.shape[-2:] != target.shape[-2:] for r in rivals.values()):
        raise InputError("--data", "sides of different picture sizes", "equal sizes")
    wanted = pooled_features(network, target)
    result = {}
    for rival, shown in rivals.items():
        values = {"kid": _kid(wanted, pooled_features(network, shown))}
        if known and len(shown) == len(target):
            values |= {"l1": mean_l1(shown, target), "psnr": mean_psnr(shown, target)}
        result[rival] = values
    back = name[::-1]
    if back in weights.translators:
        result["model"]["cycle_l1"] = mean_l1(torch.stack([run(back)(p) for p in made]), source)
    return result


def _kid(real: Tensor, fake: Tensor) -> float:
    # an untrained network's features have no scale of their own: the real collection sets it
    mean, scale = real.mean(0), real.std(0).clamp_min(1e-6)
    return kid((real - mean) / scale, (fake - mean) / scale)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
