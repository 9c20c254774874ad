"""One row a variant, the three axes side by side."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

from PIL import Image

from eval.bench.cases import Case
from eval.gans import GAN
from eval.report.axes_lines import GROUPS, Found
from eval.scores.measures import FEWEST


def table(found: Sequence[Found], group: Callable[[Case], str | None]) -> str:
    """One row a variant, the three axes side by side."""
    by_variant: dict[str, list[Found]] = {}
    for one in found:
        by_variant.setdefault(one.line["variant"], []).append(one)
    gans = {name: own for name, own in by_variant.items() if own[0].line["method"] == GAN}
    heads = ["variant", *(f"{title}, target %" for title in GROUPS.values())]
    heads += ["s / picture", "peak MiB", "training pictures", "training h"]
    heads += [f"pictures until {name} is cheaper" for name in gans]
    heads += ["MSE x10³", "KID x10³", "coverage %", "seeds", "spread over seeds x10³"]
    shared = _shared(by_variant.values(), group)
    rows = []
    for name, own in by_variant.items():
        cells = [name, *(_target(own, key, group) for key in GROUPS), *_cost(own)]
        cells += [_number(break_even(own, gan) if name not in gans else None, 0) for gan in gans.values()]
        rows.append([*cells, *_quality([one for one in own if one.case.scenes in shared])])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _target(own: Sequence[Found], key: str, group: Callable[[Case], str | None]) -> str:
    values = [one.line["scores"]["target"] for one in own if group(one.case) == key]
    return f"{100 * statistics.mean(values):.0f} (n={len(values)})" if values else "-"


def seconds(own: Sequence[Found]) -> float:
    """Median seconds a picture, without loading."""
    costs = [one.line["cost"]["seconds"] for one in own]
    return statistics.median(cost["total"] - cost["load"] for cost in costs)


def training(own: Sequence[Found]) -> dict[str, Any]:
    """What training cost; nothing for a method without one."""
    return own[0].line["settings"].get("training") or {}


def _cost(own: Sequence[Found]) -> list[str]:
    trained = training(own)
    memory = max(one.line["cost"]["peak_memory_mb"] or 0 for one in own)
    hours = trained["seconds"] / 3600 if trained.get("seconds") else None
    none = "0" if own[0].line["method"] != GAN else "-"
    pictures = f"{trained['pictures']}" if trained.get("pictures") else none
    return [f"{seconds(own):.2f}", f"{memory:.0f}", pictures, none if hours is None else f"{hours:.2f}"]


def break_even(own: Sequence[Found], gan: Sequence[Found]) -> float | None:
    """Pictures after which training the generator has paid: its seconds over the seconds that it saves a picture."""
    cost, saved = training(gan).get("seconds"), seconds(own) - seconds(gan)
    return cost / saved if cost and saved > 0 else None


def _shared(variants: Iterable[Sequence[Found]], group: Callable[[Case], str | None]) -> set[Any]:
    """Scenes of the cases that generators were trained for and that all variants have which have any of them."""
    trained = [{one.case.scenes for one in own if group(one.case) in ("trained", "unseen")} for own in variants]
    kept = [scenes for scenes in trained if scenes]
    return set.intersection(*kept) if kept else set()


def _quality(same: Sequence[Found]) -> list[str]:
    """Of results on the same cases for all variants."""
    if len(same) < 2:
        return ["-"] * 5
    mse = statistics.mean(one.line["scores"]["mse"] for one in same)
    first = [one for one in same if one.seed == min(other.seed for other in same)]
    kid, covered = _sets(first)
    shown = 1e3 * kid if len(first) >= FEWEST else None
    spread, seeds = spread_over_seeds(same)
    return [_number(1e3 * mse, 1), _number(shown, 2), _number(100 * covered, 0), str(seeds),
            "-" if spread is None else _number(1e3 * spread, 2)]  # fmt: skip


def _sets(own: Sequence[Found]) -> tuple[float, float]:
    from eval.scores.metrics import coverage, features_of, kid
    from eval.scores.networks import to_tensor
    from eval.scores.set_scores import judge_features
    from freectl.mini import MODEL_DIR
    from freectl.mini.judge import load_judge
    from freectl.mini.scene import render

    judge = load_judge(MODEL_DIR / "judge")
    features, name = judge_features(judge)
    side = (judge.size, judge.size)
    made = to_tensor(*(one.picture.resize(side, Image.Resampling.LANCZOS) for one in own))
    real = to_tensor(*(render(one.case.scenes[1], judge.size) for one in own if one.case.scenes))
    one, other = (features_of(pictures, features).detach() for pictures in (real, made))
    return kid(one, other, name).mean, coverage(one, other, name).mean


def spread_over_seeds(own: Sequence[Found]) -> tuple[float | None, int]:
    """Mean squared difference (pixels 0 to 1) of two results of one case with other seeds, and the number of seeds."""
    from eval.scores.base import pixel_mse

    by_case: dict[Any, dict[int, Found]] = {}
    for one in own:
        by_case.setdefault(one.case.scenes, {})[one.seed] = one
    values = [
        pixel_mse(a.picture, b.picture)
        for seeds in by_case.values()
        for a, b in combinations(seeds.values(), 2)
    ]  # fmt: skip
    known = [value for value in values if value is not None]
    return (statistics.mean(known) if known else None), len({one.seed for one in own})


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
