"""The metrics as scorers want them: functions of two pictures, or of a picture and a text, with a network's name."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.metrics import (
    ClipNetwork,
    KeyNetwork,
    MetricResult,
    clip_distance,
    clip_key_network,
    clip_score,
    load_clip,
    load_dino,
    load_lpips,
    lpips,
    mse,
    psnr,
    self_similarity_distance,
    ssim,
)
from eval.metrics.self_similarity import Mode

LPIPS_NET: dict[str, Literal["alex", "squeeze"]] = {"ti2i": "alex", "plain": "alex", "pie": "squeeze"}
"""Backbone by layout: "squeeze" in PIE-Bench's code, "alex" elsewhere."""


def to_tensor(*pictures: Image.Image) -> Tensor:
    """RGB pictures of one size as (B, 3, H, W), 0 to 1."""
    arrays = [np.array(picture.convert("RGB"), dtype=np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def to_keep(region: Image.Image | None) -> Tensor | None:
    """A region (mode "L", white inside) as (1, 1, H, W) of 0 and 1."""
    if region is None:
        return None
    return torch.from_numpy((np.asarray(region.convert("L")) >= 128).astype(np.float32))[None, None]


class ClipScores:
    """A CLIP on pictures; see `eval.scoring.Clip`. A picture's embedding is computed once a case."""

    def __init__(self, network: ClipNetwork) -> None:
        self.network, self.name = network, network.name

    def text_cosine(self, picture: Image.Image, text: str) -> float:
        """Cosine of the embeddings of picture and text."""
        return clip_score(to_tensor(picture), [text], self.network).mean

    def picture_cosine(self, one: Image.Image, other: Image.Image) -> float:
        """Cosine of the embeddings of two pictures."""
        return 1 - clip_distance(to_tensor(one), to_tensor(other), self.network).mean


class PictureDistance:
    """A metric of two pictures as `eval.scoring.Distance`; None where it has no meaning.

    Args:
        name: of the network, or "none". measure: pictures (1, 3, H, W) twice, and what is kept, to a result.
    """

    def __init__(self, name: str, measure: Callable[[Tensor, Tensor, Tensor | None], MetricResult]) -> None:
        self.name, self._measure = name, measure

    def __call__(self, one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> float | None:
        """The distance of two pictures, of the region (mode "L", white inside) only where one is given."""
        value = self._measure(to_tensor(one), to_tensor(other), to_keep(region)).mean
        return None if np.isnan(value) else value


def structure(network: KeyNetwork, mode: Mode = "splice") -> PictureDistance:
    """Self-similarity distance."""
    return PictureDistance(
        f"{network.name} ({mode})", lambda a, b, _keep: self_similarity_distance(a, b, network, mode)
    )


def mini_networks() -> tuple[ClipScores, PictureDistance]:
    """The embedded model's CLIP and the self-similarity of its ViT's keys.

    Raises:
        FreectlError: it is not there.
    """
    network = load_clip("mini")
    return ClipScores(network), structure(clip_key_network(network))


def clip_scores(name: str, device: str = "cpu") -> ClipScores:
    """CLIP by name; see `eval.metrics.load_clip` for names and errors."""
    return ClipScores(load_clip(name, device))


def dino_structure(mode: Mode, device: str = "cpu") -> PictureDistance:
    """Self-similarity of DINO ViT-B/8; see `eval.metrics.load_dino` for errors."""
    return structure(load_dino(device), mode)


def lpips_distance(net: Literal["alex", "squeeze"]) -> PictureDistance:
    """LPIPS; see `eval.metrics.load_lpips` for errors."""
    network, name = load_lpips(net)
    return PictureDistance(name, lambda a, b, keep: lpips(a, b, network, name, keep))


def pie_background(perceptual: PictureDistance | None) -> dict[str, PictureDistance]:
    """PIE-Bench's four background distances, in its convention: both pictures times the region, mean over the frame."""
    found = {
        "psnr": PictureDistance("none", lambda a, b, keep: psnr(a, b, keep, "pie")),
        "mse": PictureDistance("none", lambda a, b, keep: mse(a, b, keep, "pie")),
        "ssim": PictureDistance("none", lambda a, b, keep: ssim(a, b, keep, "pie")),
    }
    return found | ({"lpips": perceptual} if perceptual else {})
