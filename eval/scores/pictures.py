"""Scores of results that have no exact answer: PIE-Bench, ImageNet-R-TI2I and one's own pictures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from PIL import Image, ImageChops

from eval.bench.cases import Case
from eval.scores.base import Clip, Distance, Scored, Value, rounded
from freectl.pipelines.call_inputs import resized

Background = Mapping[str, tuple[Distance | None, float]]
"""By score: a distance over a region, and the factor that it is stored with; see `networks.background_distances`."""


class PictureScorer:
    """Scores of ImageNet-R-TI2I and manifests.

    Structure is compared with the data set's picture, LPIPS with what the method was given (arXiv 2312.07536, Table 1).
    A case with a mask also has the scores of the background outside it, one with a source prompt CLIP's of the change.

    Args:
        clip, structure, lpips: None where they could not be loaded. background: of cases with a mask.
        notes: what could not be loaded.
    """

    structure_name = "self-similarity"

    def __init__(
        self,
        clip: Clip | None = None,
        structure: Distance | None = None,
        lpips: Distance | None = None,
        background: Background | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.clip, self.structure, self.lpips = clip, structure, lpips
        self.background, self.notes = background or {}, notes or []
        named: dict[str, Any] = {"CLIP": clip, self.structure_name: structure, "LPIPS": lpips}
        self.networks = {name: one.name for name, one in named.items() if one is not None}

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result`."""
        given = resized(case.picture(), result.size)
        original = case.original() if case.original else case.picture()
        scores: dict[str, Value] = {
            "clip": self.clip.text_cosine(result, case.prompt) if self.clip else None,
            "self_similarity": self.structure(result, original) if self.structure else None,
            "lpips": self.lpips(result, given) if self.lpips else None,
            **change_scores(self.clip, case, result, original),
        }
        if case.mask is not None:
            scores |= background_scores(self.background, result, given, case.mask())
        return Scored(rounded(scores))


class PieScorer(PictureScorer):
    """PIE-Bench's own seven scores, in its conventions and printing scales (Ju et al., ICLR 2024), and others.

    The others: the background's as means over its pixels, and CLIP's of the change.

    Arguments are `PictureScorer`'s: clip is ViT-L/14 in the papers, structure self-similarity in the benchmark's mode,
    lpips the network of the background's LPIPS, for its name.
    """

    structure_name = "structure"

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result`.

        Raises:
            ValueError: the case has no mask.
        """
        if case.mask is None:
            raise ValueError(f"{case.key} has no mask")
        picture, mask = case.picture(), case.mask()
        scores: dict[str, Value] = {
            "structure_x1e3": _times(self.structure(result, picture), 1e3) if self.structure else None,
            "clip_whole": 100 * self.clip.text_cosine(result, case.prompt) if self.clip else None,
            "clip_edited": 100 * self.clip.text_cosine(_inside(result, mask), case.prompt) if self.clip else None,
            **background_scores(self.background, result, picture, mask),
            **change_scores(self.clip, case, result, picture),
        }
        return Scored(rounded(scores))


CTRLX_SIDE = 512


class CtrlXScorer(PictureScorer):
    """Ctrl-X's scores, as its evaluation code takes them: all pictures at 512 x 512 px first, bilinear.

    Its code feeds LPIPS pictures of 0 to 1 where the network expects -1 to 1, which is not done here.

    Args:
        likeness: DINO-I, of cases with an appearance picture; None where it could not be loaded.
        others: `PictureScorer`'s.
    """

    def __init__(self, *others: Any, likeness: Distance | None = None, **named: Any) -> None:
        super().__init__(*others, **named)
        self.likeness = likeness
        self.networks |= {"DINO-I": likeness.name} if likeness else {}

    def __call__(self, case: Case, result: Image.Image) -> Scored:
        """Scores of `result`."""
        given, looks, made = _shrunk(case.picture()), case.appearance, _shrunk(result)
        scores = super().__call__(replace(case, picture=lambda: given, original=lambda: given), made).scores
        if looks is None:
            return Scored(scores)
        likeness = self.likeness(made, _shrunk(looks())) if self.likeness else None
        return Scored(scores | rounded({"dino_i": likeness}))


def _shrunk(picture: Image.Image) -> Image.Image:
    return picture.resize((CTRLX_SIDE, CTRLX_SIDE), Image.Resampling.BILINEAR)


def background_scores(
    background: Background, result: Image.Image, picture: Image.Image, mask: Image.Image
) -> dict[str, Value]:
    """Distances of result and picture (of one size) where the mask, mode "L", is black."""
    outside = ImageChops.invert(resized(mask, result.size).convert("L"))
    return {
        key: _times(distance(result, picture, outside), factor) if distance else None
        for key, (distance, factor) in background.items()
    }


def change_scores(clip: Clip | None, case: Case, result: Image.Image, source: Image.Image) -> dict[str, Value]:
    """CLIP's scores of the change from `source` and its prompt; none where the case has no source prompt."""
    if not case.source_prompt:
        return {}
    texts = case.prompt, case.source_prompt
    return {
        "clip_directional": clip.directional(result, source, *texts) if clip else None,
        "clip_accuracy": clip.accuracy(result, *texts) if clip else None,
    }


def _inside(picture: Image.Image, mask: Image.Image) -> Image.Image:
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def _times(value: Value, factor: float) -> Value:
    return None if value is None else value * factor
