"""What a trained run's codes, words, labels and style pictures do.

Each function gives an empty dict for a model that it does not fit.
"""

from math import log

import torch
from torch import Tensor

from eval.gans.finished import Finished
from eval.gans.measure import judged, objects_of, read_tensor, verdicts_of
from freectl.mini.domain import OBJECTS

DRAWN = 16
"""Pictures a category, and answers a caption."""
CAPTIONS = 20


def code_scores(run: Finished) -> dict[str, float]:
    """Of InfoGAN's category: its mutual information with the object that the judge sees, in nats, and how often the
    object is that of the category, by the best assignment of objects to categories."""
    from gan_baselines.inference import sample

    weights = run.weights
    if weights.model.name != "infogan":
        return {}
    objects, count = list(OBJECTS), weights.model.categories
    joint = torch.zeros(count, len(objects))
    for category in range(count):
        condition = weights.network.condition(str(category), None, None)
        for verdict in verdicts_of(list(sample(weights.noise_generator, DRAWN, 0, condition=condition))):
            joint[category, objects.index(verdict.labels["object"])] += 1
    return {"information": information(joint), "code_accuracy": assigned(joint)}


def information(joint: Tensor) -> float:
    """Mutual information in nats of two variables whose counts (N, M) are given."""
    share = joint.double() / joint.sum()
    apart = share.sum(1, keepdim=True) * share.sum(0, keepdim=True)
    return float((share * (share / apart).log())[share > 0].sum().clamp(0, log(min(joint.shape))))


def assigned(joint: Tensor) -> float:
    """Share of counts (N, M) that the best one-to-one assignment of rows to columns holds."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(joint.numpy(), maximize=True)
    return float(joint[rows, columns].sum() / joint.sum())


def one_label_scores(run: Finished) -> dict[str, float]:
    """As "one_label", the mean L1 between pictures of maps that hold one label each; 0 where a norm takes it away."""
    from gan_baselines.inference import translate
    from gan_baselines.metrics import diversity

    weights = run.weights
    if run.layout != "labelled":
        return {}
    side, sides = weights.about.get("height", 64), 1 + weights.model.instances
    maps = [torch.zeros(sides, side, side) for _ in range(weights.model.labels)]
    for label, one in enumerate(maps):
        one[0] = label
    made = [translate(weights.translators["AB"], one, weights.multiple) for one in maps]
    return {"one_label": diversity(torch.stack(made))}


def caption_scores(run: Finished) -> dict[str, float]:
    """Of pictures drawn for captions: how different those of one caption are, in L1, and how often the judge sees the
    caption's object, style and background."""
    from gan_baselines.data.folders import find_sources
    from gan_baselines.inference import sample
    from gan_baselines.metrics import diversity

    weights = run.weights
    if run.layout != "captioned":
        return {}
    marks = find_sources(run.data, "captioned", "test")["picture"].marks[: min(CAPTIONS, run.limit)]
    apart, right = [], []
    for caption in marks:
        condition = weights.network.condition(None, caption, None)
        made = torch.stack(list(sample(weights.noise_generator, DRAWN, 0, condition=condition)))
        apart.append(diversity(made))
        words = set(caption.split())
        for verdict in verdicts_of(list(made)):
            right.append({word for label in verdict.labels.values() for word in label.split()} <= words)
    return {"caption_diversity": sum(apart) / len(apart), "words_right": sum(right) / len(right)}


def style_scores(run: Finished, target: str) -> dict[str, float]:
    """Of AdaIN, each picture in the style of the next one's other side: how often the judge sees the style `target` and
    the content's object, as percent, and the L1 to the content."""
    from gan_baselines.inference import translate

    weights = run.weights
    if weights.model.name != "adain":
        return {}
    files, looks = run.test("A"), run.test("B")
    contents = [read_tensor(path) for path in files]
    styles = [weights.network.style_of("AB", read_tensor(path)[None]) for path in (*looks[1:], looks[0])]
    made = [
        translate(weights.translators["AB"], content, weights.multiple, style=style)
        for content, style in zip(contents, styles, strict=True)
    ]
    objects = objects_of(run.scenes / "scenes.jsonl")
    seen_in = judged(made, [objects[path.name] for path in files], target)
    return seen_in | {"content_l1": float((torch.stack(made) - torch.stack(contents)).abs().mean())}
