"""What the papers' own tables say of a trained run: label scores, and the discriminators' scores.

On test pictures. Each function gives an empty dict for a model that it does not fit.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.gans.codes import caption_scores, code_scores, one_label_scores, style_scores
from eval.gans.finished import Finished
from eval.gans.maps import as_judged, class_names, unpainted
from eval.gans.measure import read_tensor, verdicts_of
from eval.gans.sampled import from_labels
from eval.scores.metrics import confusion, segmentation_scores
from freectl.mini.domain import OBJECTS

SCORES = ("per_pixel", "per_class", "class_iou")


def truth(scenes: Path, files: list[Path]) -> Tensor:
    """Label maps (N, H, W) in the judge's order of the drawn side of scenes, by the names of `files`.

    Raises:
        InputError: scenes that cannot be read.
    """
    from eval.files import parsed
    from eval.scores.segment import label_map, scene_lines

    lines = parsed(scenes / "scenes.jsonl", scene_lines, "scenes of `freectl mini scenes`", "--runs")
    known = {line.picture.name: line for line in lines if line.picture.parent.name != "A"}
    return torch.stack([torch.from_numpy(label_map(scenes, known[path.name])).long() for path in files])


def seen(pictures: list[Tensor]) -> Tensor:
    """Label maps (N, H, W) that the judge sees in pictures (3, H, W), as a segmenter."""
    from gan_baselines.data.pictures import to_image

    segment = _segmenter()
    return torch.stack([segment(to_image(one), (one.shape[1], one.shape[2])) for one in pictures])


@cache
def _segmenter() -> Any:
    from eval.scores.segmenters import load_segmenter

    return load_segmenter("judge")[0]


def compared(found: Tensor, wanted: Tensor, beginning: str = "") -> dict[str, float]:
    """Per-pixel accuracy, per-class accuracy and class IoU of label maps (N, H, W), as shares."""
    scores = segmentation_scores(confusion(found, wanted, 1 + len(OBJECTS)))
    shares = (scores.pixel_accuracy, scores.class_accuracy, scores.mean_iou)
    return {beginning + key: share for key, share in zip(SCORES, shares, strict=True)}


def label_scores(run: Finished) -> dict[str, float]:
    """Pictures by their labels, as the judge sees them; maps that a run paints, by their colours, as "label_...".

    "modes": how many pairs of object and background the judge sees in translations, over those in true pictures.
    """
    weights = run.weights
    if not weights.translators or not (run.scenes / "masks").is_dir():
        return {}
    painted = "A" if run.data.name.startswith("maps") else "B" if run.data.name.startswith("photos") else None
    files, found = run.test("B"), dict[str, float]()
    wanted = truth(run.scenes, files)
    for name in weights.translators:
        source, target = name
        if run.layout == "labelled":
            made = from_labels(weights, run.data, len(files))
        elif target == "A" and painted != "A":
            continue  # the other style's outlines are others
        else:
            made = [_translated(weights, name, read_tensor(path)) for path in run.test(source)]
        if target == painted:
            names = class_names(run.data.parent / "labelled")
            maps = torch.stack([as_judged(unpainted(one, len(names)), names) for one in made])
            found |= compared(maps, wanted, "label_")
        else:
            found |= compared(seen(made), wanted) | {"modes": _modes(made) / _modes([read_tensor(p) for p in files])}
    return found


def rivals(run: Finished) -> dict[str, dict[str, float]]:
    """The same scores of the true pictures."""
    if not (run.scenes / "masks").is_dir() or run.data.name.startswith("photos"):
        return {}
    files = run.test("B")
    return {"true pictures": compared(seen([read_tensor(path) for path in files]), truth(run.scenes, files))}


def _translated(weights: Any, name: str, picture: Tensor) -> Tensor:
    from gan_baselines.inference import translate

    dropout = getattr(getattr(weights.model, "generator", None), "dropout", False)
    return translate(weights.translators[name], picture, weights.multiple, dropout=dropout)


def _modes(pictures: list[Tensor]) -> int:
    labels = [verdict.labels for verdict in verdicts_of(pictures)]
    return len({(one["object"], one["background"]) for one in labels})


@torch.inference_mode()
def discriminator_scores(run: Finished) -> dict[str, float]:
    """D(fake) and D(real) in [0, 1] of each side, as mean over patches, in batches and with noise as in training.

    "d_fake", "d_real" of Pix2Pix; of the CycleGANs "a_fake", "a_real", "b_fake", "b_real", and, as a table whose rows
    add up to one prints them, A's two as shares of their sum: "h_fake", "h_real".
    """
    from gan_baselines.inference import presenting
    from gan_baselines.losses import realness
    from gan_baselines.weights import load_discriminators

    weights = run.weights
    net, config = weights.network, weights.model
    if config.name not in ("pix2pix", "cyclegan", "modified-cyclegan") or not net.discriminators:
        return {}
    load_discriminators(net.discriminators, run.folder / "weights", "--runs")
    sides = {side: torch.stack([read_tensor(path) for path in run.test(side)]) for side in "AB"}
    size = weights.about.get("batch_size", 1)
    found: dict[str, list[Tensor]] = {}
    with presenting(*net.generators.values(), *net.discriminators.values()):
        for parts in zip(sides["A"].split(size), sides["B"].split(size), strict=True):
            batch = dict(zip("AB", parts, strict=True))
            for side, judge in net.discriminators.items():
                source = "BA"[side == "B"]
                extra = (batch["A"],) if getattr(config, "conditional", False) else ()
                pictures = {"real": batch[side], "fake": net.generators[source + side](batch[source])}
                for kind, picture in pictures.items():
                    scored = realness(config.loss, judge(picture, *extra).logits)
                    found.setdefault(f"{side.lower()}_{kind}", []).append(scored)
    scores = {name: float(torch.cat(values).mean()) for name, values in found.items()}
    if config.name == "pix2pix":
        return {"d_fake": scores["b_fake"], "d_real": scores["b_real"]}
    whole = max(scores["a_fake"] + scores["a_real"], 1e-9)
    return scores | {"h_fake": scores["a_fake"] / whole, "h_real": scores["a_real"] / whole}


def scores_of(run: Finished, target: str) -> dict[str, float]:
    """All that fits the model; `target` is the style that B is drawn in."""
    found = style_scores(run, target)
    for measured in (label_scores, discriminator_scores, code_scores, one_label_scores, caption_scores):
        found |= {} if run.weights.model.name == "adain" else measured(run)
    return found
