"""What each block of a network knows: how much of its keys is the place alone, the outline, and what is shown.

Keys that are mostly the token's place hold little that one picture could pass to another; those that tell the outline
and what is shown are worth following.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eval.scores.intervals import Estimate, estimate, share
from eval.showcase.probe import LEVELS, RIDGE, TRAINED, features_of, masked_scenes, reconstructed, times_of
from freectl.mini.scene import render
from freectl.models.engine import Engine


@dataclass(frozen=True)
class Known:
    """Of one site at one noise level.

    Attributes:
        level: share of the schedule, from the start of sampling on.
        place: share of the features' variance that the token's place explains, whatever is shown; 0 to 1.
        outline: IoU of masks that a linear reader of single tokens finds, of scenes it was not fitted to.
        object, style: share of such scenes whose word a linear reader of the mean token names.
    """

    site: str
    level: float
    place: float
    outline: Estimate
    object: Estimate
    style: Estimate


def place_share(features: Tensor) -> float:
    """Variance between places as a share of all variance, the expectation of chance taken off.

    Args:
        features: (N, tokens, C) of N pictures.
    """
    values = features.double()
    count, tokens = values.shape[:2]
    of_places = values.mean(0)
    between = (of_places - of_places.mean(0)).square().sum() * count / (tokens - 1)
    within = (values - of_places).square().sum() / (tokens * (count - 1))
    # one-way analysis of variance: E[between] = within + N var(places)
    var_places = float((between - within).clamp(min=0)) / count
    return var_places / (var_places + float(within)) if within > 0 else 1.0


def named(features: Tensor, words: Sequence[str]) -> list[bool]:
    """Whether a linear reader of mean and deviation over tokens, fitted to the first scenes, names each later one."""
    pooled = torch.cat([features.mean(1), features.std(1)], 1).double().numpy()
    known = round(TRAINED * len(words))
    reader = make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE)).fit(pooled[:known], words[:known])
    return list(reader.predict(pooled[known:]) == np.asarray(words[known:]))


def key_sites(engine: Engine) -> list[str]:
    """Keys of every self-attention as they run: behind their norms, and before where they have some."""
    layers = engine.family.self_layers(engine.network)
    modules = dict(engine.network.named_modules())
    sites = [site for layer in layers for site in (layer.picture["k"], f"{layer.name}.to_k") if site in modules]
    return list(dict.fromkeys(sites))


def known(engine: Engine, count: int, sites: Sequence[str], side: int) -> Iterator[Known]:
    """Probe the sites with `count` scenes of the embedded world, without words: what is told is seen.

    Args:
        side: of the pictures in px.
    """
    shown, masks = masked_scenes(count, side)
    times = times_of(engine)
    found = features_of(engine, [("", render(scene, side)) for scene in shown], times, sites)
    for site in sites:
        for time, level in zip(times, LEVELS, strict=True):
            features = found[time, site]
            yield Known(
                site,
                level,
                place_share(features),
                estimate(reconstructed(features, masks)),
                share([float(right) for right in named(features, [scene.object for scene in shown])]),
                share([float(right) for right in named(features, [scene.style for scene in shown])]),
            )
