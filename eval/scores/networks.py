"""The metrics as scorers want them: functions of two pictures, or of a picture and a text, with a network's name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.scores.measures import PSNR_MOST
from eval.scores.metrics import (
    ClipNetwork,
    KeyNetwork,
    MetricResult,
    class_similarity,
    clip_accuracy,
    clip_directional,
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
from eval.scores.metrics.pixels import Convention
from eval.scores.metrics.self_similarity import Mode


def lpips_net(layout: str) -> Literal["alex", "squeeze"]:
    """Backbone by layout: "squeeze" in PIE-Bench's code, "alex" elsewhere."""
    return "squeeze" if layout == "pie" else "alex"


BACKGROUND: dict[Convention, tuple[tuple[str, float], ...]] = {
    "pie": (("psnr", 1.0), ("mse_x1e4", 1e4), ("ssim_x1e2", 1e2)),
    "masked": (("background_psnr", 1.0), ("background_mse", 1.0), ("background_ssim", 1.0)),
}
"""Score and factor of PSNR, MSE and SSIM of the background by convention."""


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
    """A CLIP on pictures; see `eval.scores.base.Clip`."""

    def __init__(self, network: ClipNetwork) -> None:
        self.network, self.name = network, network.name

    def text_cosine(self, picture: Image.Image, text: str) -> float:
        """Cosine of the embeddings of picture and text."""
        return clip_score(to_tensor(picture), [text], self.network).mean

    def picture_cosine(self, one: Image.Image, other: Image.Image) -> float:
        """Cosine of the embeddings of two pictures."""
        return 1 - clip_distance(to_tensor(one), to_tensor(other), self.network).mean

    def directional(self, picture: Image.Image, source: Image.Image, text: str, source_text: str) -> float | None:
        """Directional similarity of the edit from source to picture; None where the texts have equal embeddings."""
        value = clip_directional(to_tensor(picture), to_tensor(source), [text], [source_text], self.network).mean
        return None if np.isnan(value) else value

    def accuracy(self, picture: Image.Image, text: str, source_text: str) -> float:
        """1 where the picture is nearer to the text than to the source text, else 0."""
        return clip_accuracy(to_tensor(picture), [text], [source_text], self.network).mean


class PictureDistance:
    """A metric of two pictures as `eval.scores.base.Distance`; None where the region is empty.

    Args:
        name: of the network, or "none". measure: pictures (1, 3, H, W) twice, and what is kept, to a result.
    """

    def __init__(self, name: str, measure: Callable[[Tensor, Tensor, Tensor | None], MetricResult]) -> None:
        self.name, self._measure = name, measure

    def __call__(self, one: Image.Image, other: Image.Image, region: Image.Image | None = None) -> float | None:
        """The distance of two pictures, of the region (mode "L", white inside) only where one is given."""
        keep = to_keep(region)
        if keep is not None and not keep.any():
            return None
        return self._measure(to_tensor(one), to_tensor(other), keep).mean


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
    """CLIP by name; see `eval.scores.metrics.load_clip` for names and errors."""
    return ClipScores(load_clip(name, device))


def dino_structure(mode: Mode, device: str = "cpu") -> PictureDistance:
    """Self-similarity of DINO ViT-B/8; see `eval.scores.metrics.load_dino` for errors."""
    return structure(load_dino(device), mode)


def dino_likeness(device: str = "cpu") -> PictureDistance:
    """DINO-I; see `eval.scores.metrics.load_dino` for errors."""
    network = load_dino(device)
    return PictureDistance(network.name, lambda a, b, _keep: class_similarity(a, b, network))


def lpips_distance(net: Literal["alex", "squeeze"]) -> PictureDistance:
    """LPIPS; see `eval.scores.metrics.load_lpips` for errors."""
    network, name = load_lpips(net)
    return PictureDistance(name, lambda a, b, keep: lpips(a, b, network, name, keep))


def background_distances(perceptual: PictureDistance | None) -> dict[str, tuple[PictureDistance | None, float]]:
    """Distances over the region that they are given, with the factor that they are stored with, by score.

    In PIE-Bench's convention and printing scales: both pictures times the region, mean over the frame. Then as plain
    means over the region's pixels, unscaled; LPIPS has the first alone, see `eval.scores.metrics.lpips`.

    Args:
        perceptual: LPIPS, or None where it could not be loaded.
    """
    found: dict[str, tuple[PictureDistance | None, float]] = {"lpips_x1e3": (perceptual, 1e3)}
    for convention, scales in BACKGROUND.items():
        for (key, scale), metric in zip(scales, (counted_psnr, mse, ssim), strict=True):
            found[key] = (PictureDistance("none", partial(_of_region, metric, convention)), scale)
    return found


def counted_psnr(one: Tensor, other: Tensor, keep: Tensor | None, convention: Convention) -> MetricResult:
    """PSNR as it goes into means: finite for equal pictures, see `PSNR_MOST`."""
    found = psnr(one, other, keep, convention)
    return MetricResult(found.name, found.values.clamp(max=PSNR_MOST), found.network, f"at most {PSNR_MOST:.0f} dB")


def _of_region(
    metric: Callable[..., MetricResult], convention: Convention, a: Tensor, b: Tensor, keep: Tensor | None
) -> MetricResult:
    return metric(a, b, keep, convention)
