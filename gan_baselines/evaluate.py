"""Measuring a weights folder on a data folder, always beside the baselines that need no training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_baselines.config import CHANNELS, Form, layout_of
from gan_baselines.data.folders import Source, Split, find_sources, has_split, same_names
from gan_baselines.data.marks import marked
from gan_baselines.data.pictures import read_picture, shown, to_range, to_tensor
from gan_baselines.data.sets import PictureSet
from gan_baselines.errors import InputError
from gan_baselines.inference import sample, translate
from gan_baselines.metrics import coverage, diversity, kid, mean_l1, mean_psnr, pooled_features, random_network
from gan_baselines.weights import Weights

NETWORK = "random convolutional network (seed 0), features standardised by the real pictures"
COLUMNS = ("l1", "psnr", "kid", "cycle_l1", "best_l1", "diversity", "coverage")


def evaluate(
    weights: Weights,
    data: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    network: nn.Module | None = None,
    only: str | None = None,
    samples: int = 1,
) -> dict[str, Any]:
    """Measure every direction of `weights` (or `only` one) on the test split of `data`.

    Where there is no test split, the training split is measured.

    Translations: L1 (range [-1, 1]) and PSNR (dB) to the true picture where it is known (pairs, label maps, or test
    folders of equal file names), kernel distance (KID) to the target collection, and for two directions the L1 of the
    cycle; each beside identity (the input unchanged, where it is a picture) and mean (the mean target picture of the
    training split, where there is one). With several `samples`, seeds from `seed` on: the L1 of the best of them, their
    mean L1 to each other (diversity), and the share of the true answers in answers/NAME/ of the split that some sample
    comes nearest to (coverage). Noise models: KID to the collection, under its own classes or captions.

    Args:
        limit: pictures of each side at most, the first by name.
        network: features of the KID: (N, 3, H, W) in [-1, 1] to maps (N, C, h, w). None is a fixed random network.

    Raises:
        InputError: the folder does not fit the model.
        GanError: a translation is not finite.
    """
    layout = layout_of(weights.model.name)
    split: Split = "test" if has_split(data, layout, "test") else "train"
    sources = find_sources(data, layout, split)
    side = weights.about.get("height") if weights.about.get("resized") else None
    form = weights.model.form
    sets = {name: PictureSet(source, side, form(name)) for name, source in sources.items()}
    pictures = {name: _taken(part, limit) for name, part in sets.items()}
    report: dict[str, Any] = {"split": split, "pictures": {name: len(p) for name, p in pictures.items()}}
    report["kid_network"] = NETWORK if network is None else "network of the caller's"
    network = network or random_network()
    if "picture" in pictures:
        return report | {"kid": _noise_kid(weights, sources["picture"], pictures["picture"], seed, network)}
    known = layout in ("paired", "labelled") or same_names(sources)
    report["truth"] = known
    if "I" in pictures:
        pictures["A"] = torch.cat([pictures["A"], pictures["I"]], 1)
    learned = find_sources(data, layout, "train") if has_split(data, layout, "train") else sources
    for name in [name for name in weights.translators if only in (None, name)]:
        asked = _Asked(weights, name, seed, samples)
        mean = _mean_picture(PictureSet(learned[name[1]], side, form(name[1])))
        answers = [
            _answers(data / split / "answers" / path.stem, form(name[1])) for path in sources[name[0]].files[:limit]
        ]
        report[name] = _direction(asked, pictures, mean, known, network, answers)
    return report


def table(report: dict[str, Any]) -> list[list[str]]:
    """Rows (direction, method, measure columns) of a report for people, below their header."""
    directions = {name: part for name, part in report.items() if isinstance(part, dict) and "model" in part}
    lines = [(name, method, values) for name, part in directions.items() for method, values in part.items()]
    shown = [key for key in COLUMNS if any(key in values for *_, values in lines)]
    rows = [[name, method, *(_shown(values.get(key)) for key in shown)] for name, method, values in lines]
    return [["direction", "method", *shown], *rows]


class _Asked:
    """A direction of weights, asked for `samples` answers to each picture."""

    def __init__(self, weights: Weights, name: str, seed: int, samples: int) -> None:
        self.weights, self.name, self.seed, self.samples = weights, name, seed, samples
        self.dropout = getattr(getattr(weights.model, "generator", None), "dropout", False)

    def answer(self, picture: Tensor, index: int = 0, name: str | None = None) -> Tensor:
        """The answer of the seed with that index."""
        net = self.weights.translators[name or self.name]
        return translate(net, picture, self.weights.multiple, dropout=self.dropout, seed=self.seed + index)

    def back(self) -> str | None:
        """The other direction, where there is one."""
        return name if (name := self.name[::-1]) in self.weights.translators else None


def _taken(part: PictureSet, limit: int | None) -> Tensor:
    pixels = part.take(list(range(min(len(part), limit or len(part)))))
    return pixels.float() if pixels.dtype == torch.int32 else to_range(pixels)


def _mean_picture(pictures: PictureSet) -> Tensor:
    total = torch.zeros(CHANNELS[pictures.form], pictures.height, pictures.width, dtype=torch.float64)
    for index in range(len(pictures)):
        total += pictures.take([index])[0]
    return to_range(total / len(pictures))


def _answers(folder: Path, form: Form) -> list[Tensor]:
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return [to_range(to_tensor(read_picture(path, form=form))) for path in files]


def _noise_kid(weights: Weights, source: Source, real: Tensor, seed: int, network: nn.Module) -> float:
    size = weights.model.side
    if real.shape[-2:] != (size, size):
        raise InputError("--data", f"pictures of {real.shape[-1]}x{real.shape[-2]} px", f"{size}x{size} px")
    count = max(len(real), 2)
    condition = None
    if source.marks and weights.network is not None:
        marks = (source.marks * count)[:count]
        condition = weights.network.conditions(marked(weights.model, marks))
    drawn = sample(weights.noise_generator, count, seed, condition=condition)
    fake = enlarged(torch.stack(list(drawn)), size)
    return _kid(pooled_features(network, real), pooled_features(network, fake))


def enlarged(pictures: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) at the side that real pictures have; a first stage draws smaller ones."""
    if pictures.shape[-1] == side:
        return pictures
    return functional.interpolate(pictures, size=(side, side), mode="bilinear")


def _direction(
    asked: _Asked,
    pictures: dict[str, Tensor],
    mean: Tensor,
    known: bool,
    network: nn.Module,
    answers: list[list[Tensor]],
) -> dict[str, dict[str, float]]:
    source, target = pictures[asked.name[0]], pictures[asked.name[1]]
    made = torch.stack([asked.answer(picture) for picture in source])
    rivals = {"model": made, "identity": source, "mean": mean.expand(len(source), -1, -1, -1)}
    if source.shape[1] != target.shape[1]:  # label maps are no pictures, grey ones no coloured ones
        del rivals["identity"]
    if any(r.shape[-2:] != target.shape[-2:] for r in rivals.values()):
        raise InputError("--data", "sides of different picture sizes", "equal sizes")
    wanted = pooled_features(network, shown(target))
    result = {}
    for rival, found in rivals.items():
        values = {"kid": _kid(wanted, pooled_features(network, shown(found)))}
        if known and len(found) == len(target):
            values |= {"l1": mean_l1(found, target), "psnr": mean_psnr(found, target)}
        result[rival] = values
    if back := asked.back():
        result["model"]["cycle_l1"] = mean_l1(torch.stack([asked.answer(p, name=back) for p in made]), source)
    if asked.samples > 1:
        result["model"] |= _several(asked, source, target if known and len(source) == len(target) else None, answers)
    return result


def _several(asked: _Asked, source: Tensor, target: Tensor | None, answers: list[list[Tensor]]) -> dict[str, float]:
    found: dict[str, list[float]] = {"diversity": [], "best_l1": [], "coverage": []}
    for index, picture in enumerate(source):
        made = torch.stack([asked.answer(picture, i) for i in range(asked.samples)])
        found["diversity"].append(diversity(made))
        if target is not None:
            found["best_l1"].append(min(mean_l1(one, target[index]) for one in made))
        if answers[index]:
            found["coverage"].append(coverage(made, torch.stack(answers[index])))
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def _kid(real: Tensor, fake: Tensor) -> float:
    # an untrained network's features have no scale of their own: the real collection sets it
    mean, scale = real.mean(0), real.std(0).clamp_min(1e-6)
    return kid((real - mean) / scale, (fake - mean) / scale)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
