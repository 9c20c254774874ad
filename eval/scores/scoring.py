"""The scorer of a benchmark; networks are injectable, and a missing one gives null with a note."""

from typing import Literal

from eval.bench.cases import Layout
from eval.scores.base import Scorer, optional
from eval.scores.control import ControlScorer
from eval.scores.mini import MiniScorer
from eval.scores.pictures import CtrlXScorer, PictureScorer, PieScorer


def scorer_for(layout: Layout, device: str = "auto", clip: str | None = None) -> Scorer:
    """The scorer of a layout with all networks that this machine has; what is missing is in its notes.

    Args:
        clip: name of the CLIP, see `metrics.load_clip`; None is the embedded one for the mini benchmarks, and
            what most papers use elsewhere.
    """
    from eval.scores import networks
    from eval.scores.metrics.clip import DEFAULT
    from freectl.pipelines.loading import resolve_device

    notes: list[str] = []
    found = resolve_device(device)[0]
    if layout in ("mini", "control"):
        from freectl.mini import MODEL_DIR
        from freectl.mini.judge import load_judge

        own, structure = (
            optional(networks.mini_networks, "CLIP, CLIP distance and self-similarity", notes) or (None,) * 2
        )
        if clip not in (None, "mini"):
            own = optional(lambda: networks.clip_scores(clip, found), "CLIP and CLIP distance", notes)
        judge = load_judge(MODEL_DIR / "judge")
        return MiniScorer(judge, own, structure, notes) if layout == "mini" else ControlScorer(judge, own, notes)
    scores = optional(lambda: networks.clip_scores(clip or DEFAULT, found), "CLIP", notes)
    mode: Literal["pie", "splice"] = "pie" if layout == "pie" else "splice"
    dino = optional(lambda: networks.dino_structure(mode, found), "self-similarity", notes)
    perceptual = optional(lambda: networks.lpips_distance(networks.lpips_net(layout)), "LPIPS", notes)
    if layout in ("ctrl-x", "ctrl-x-pairs"):
        likeness = None
        if layout == "ctrl-x-pairs":
            likeness = optional(lambda: networks.dino_likeness(found), "DINO-I", notes)
        return CtrlXScorer(scores, dino, perceptual, notes=notes, likeness=likeness)
    scorer = PieScorer if layout == "pie" else PictureScorer
    return scorer(scores, dino, perceptual, networks.background_distances(perceptual), notes)
